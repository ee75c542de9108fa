/** Where the page is: /chat for a new conversation, /chat/ID for one that is there. */
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

export function go(path: string, { replace = false } = {}): void {
  if (replace) history.replaceState(null, "", path);
  else if (path !== location.pathname) history.pushState(null, "", path);
  window.dispatchEvent(new Event(MOVED));
}

export const chatPath = (id: string): string => `/chat/${encodeURIComponent(id)}`;

/** The conversation that a path names, null for a new one. */
export function conversationIn(path: string): string | null {
  const named = /^\/chat\/(.+)$/.exec(path)?.[1];
  if (!named) return null;
  try {
    return decodeURIComponent(named);
  } catch {
    return null;
  }
}
