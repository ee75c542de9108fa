/** What one has said of answers so far: asked once for each answer, and again when one has judged it since. */
import { useEffect, useState, useSyncExternalStore } from "react";
import type { KeptFeedback } from "../api/client";
import { saidOf } from "../api/feedback";

const known = new Map<string, Promise<KeptFeedback[]>>();

function about(id: string): Promise<KeptFeedback[]> {
  const asked = known.get(id) ?? saidOf(id);
  known.set(id, asked);
  asked.catch(() => known.get(id) === asked && known.delete(id));
  return asked;
}

/** Somebody judged this answer just now. */
export const judged = (id: string): void => void known.delete(id);

/** Somebody else uses the page from now on. */
export const forgetSaid = (): void => known.clear();

let takenBack = 0;
const listeners = new Set<() => void>();

/** Somebody took a judgement back beside the chat: whatever shows what was said looks anew. */
export function saidLess(): void {
  forgetSaid();
  takenBack += 1;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Undefined until it is known; if it cannot be known, nothing was said. Looks anew where `changes` did. */
export function useSaid(id: string, wanted: boolean, changes = 0): KeptFeedback[] | undefined {
  const since = useSyncExternalStore(subscribe, () => takenBack);
  const [found, setFound] = useState<{ since: number; kept: KeptFeedback[] }>();
  useEffect(() => {
    if (!wanted) return;
    let current = true;
    about(id).then(
      (kept) => current && setFound({ since, kept }),
      () => current && setFound({ since, kept: [] }),
    );
    return () => {
      current = false;
    };
  }, [id, wanted, changes, since]);
  return found?.since === since ? found.kept : undefined;
}
