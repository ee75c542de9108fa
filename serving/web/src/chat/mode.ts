/** How many answers a question is to get: so it stays, in whichever chat, until somebody wants another number. */
import type { Mode } from "./trials";

const KEY = "ratchet.answers";

export function chosenMode(): Mode {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === "two" || kept === "four" ? kept : "one";
  } catch {
    return "one";
  }
}

export function chooseMode(mode: Mode): void {
  try {
    if (mode === "one") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, mode);
  } catch {
    // Then it lasts until the chat is left.
  }
}
