/** Where the page is: /chat for a new conversation, /chat/ID for one that is there, /console/VIEW[/ID] beside them. */
import { useSyncExternalStore } from "react";

const MOVED = "ratchet:moved";

function subscribe(listener: () => void): () => void {
  window.addEventListener("popstate", listener);
  window.addEventListener(MOVED, listener);
  return () => {
    window.removeEventListener("popstate", listener);
    window.removeEventListener(MOVED, listener);
  };
}

export function usePath(): string {
  return useSyncExternalStore(subscribe, () => location.pathname);
}

/** What follows the path, "?" included, or "". */
export function useSearch(): string {
  return useSyncExternalStore(subscribe, () => location.search);
}

export function go(path: string, { replace = false } = {}): void {
  if (replace) history.replaceState(null, "", path);
  else if (path !== location.pathname + location.search) history.pushState(null, "", path);
  window.dispatchEvent(new Event(MOVED));
}

export const chatPath = (id: string): string => `/chat/${encodeURIComponent(id)}`;

/** The conversation that a path names, null for a new one. */
export function conversationIn(path: string): string | null {
  return decoded(/^\/chat\/(.+)$/.exec(path)?.[1]);
}

export const consolePath = (view: string, id?: string | number): string =>
  `/console/${view}` + (id === undefined ? "" : `/${encodeURIComponent(id)}`);

export interface InConsole {
  view: string;
  id: string | null;
}

/** The view of the console that a path names, and the one thing shown in it; null for a path outside the console. */
export function consoleIn(path: string): InConsole | null {
  const parts = /^\/console(?:\/([^/]*)(?:\/(.+))?)?$/.exec(path);
  return parts && { view: parts[1] || "overview", id: decoded(parts[2]) };
}

function decoded(segment: string | undefined): string | null {
  if (!segment) return null;
  try {
    return decodeURIComponent(segment);
  } catch {
    return null;
  }
}
