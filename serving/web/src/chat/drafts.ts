/** What somebody has begun to write, by conversation: no refresh and no failure may lose it. */
const PREFIX = "ratchet.draft.";

export function draftOf(id: string): string {
  try {
    return localStorage.getItem(PREFIX + id) ?? "";
  } catch {
    return "";
  }
}

export function keepDraft(id: string, text: string): void {
  try {
    if (text) localStorage.setItem(PREFIX + id, text);
    else localStorage.removeItem(PREFIX + id);
  } catch {
    // Storage is full or forbidden: the text is still on the page.
  }
}

/** It was sent and taken; what was written since stays. */
export function forgetDraft(id: string, sent: string): void {
  for (const each of [id, NEW]) if (draftOf(each).trim() === sent.trim()) keepDraft(each, "");
}

export function forgetDrafts(): void {
  try {
    for (const key of Object.keys(localStorage)) if (key.startsWith(PREFIX)) localStorage.removeItem(key);
  } catch {
    // Storage is forbidden: there are none.
  }
}

/** Drafts of a conversation that has no name yet. */
export const NEW = "new";
