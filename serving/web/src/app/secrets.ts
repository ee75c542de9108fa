/**
 * What is told once, a key or a link: it is kept until whoever made it says that they have it, wherever they go in the
 * page meanwhile. In memory alone, and never beyond the person it was told to.
 */
import { useSyncExternalStore } from "react";

export interface Shown {
  what: "key" | "link";
  /** Of the key or the invite. */
  id: string;
  /** Whose it is. */
  name: string;
  text: string;
}

let pending: readonly Shown[] = [];
let making = 0;
let due: (() => void) | null = null;
const listeners = new Set<() => void>();

/** Newest first. A key rotated anew has another text, and the one of before is useless. */
export function showSecret(shown: Shown): void {
  changed([shown, ...pending.filter(({ id }) => id !== shown.id)]);
}

export function acknowledge({ text }: Shown): void {
  changed(pending.filter((each) => each.text !== text));
  settle();
}

/** Work that ends with something to show: nobody is signed out before it is known. */
export async function makingSecret<T>(work: () => Promise<T>): Promise<T> {
  making += 1;
  try {
    return await work();
  } finally {
    making -= 1;
    settle();
  }
}

/** Does it once all is acknowledged, at once where nothing is pending; whether that is so. */
export function afterSecrets(deed: () => void): boolean {
  due = deed;
  return settle();
}

/** Who was to be signed out is signed in anew. */
export function signedInAnew(): void {
  due = null;
}

/** Whoever leaves by themselves takes nothing along. */
export function forgetSecrets(): void {
  due = null;
  changed([]);
}

export const useSecrets = (): readonly Shown[] => useSyncExternalStore(subscribe, () => pending);

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed(next: readonly Shown[]): void {
  pending = next;
  if (pending.length > 0) window.addEventListener("beforeunload", stay);
  else window.removeEventListener("beforeunload", stay);
  for (const listener of listeners) listener();
}

function settle(): boolean {
  if (pending.length > 0 || making > 0) return false;
  const deed = due;
  due = null;
  deed?.();
  return true;
}

/** The browser asks whether to leave. */
const stay = (event: BeforeUnloadEvent): void => event.preventDefault();
