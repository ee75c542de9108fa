/** How many answers a question is to get: so it stays, in whichever chat, until somebody wants another number. */
const MODE = "ratchet.answers";
const RANKED = "ratchet.ranked";
const USUAL = 4;

/** Two are laid side by side, and the gateway writes no more than eight. */
export const RANKABLE = [3, 4, 5, 6, 7, 8];

export type Mode = "one" | "two" | "several";

export interface Wanted {
  mode: Mode;
  /** So many where they are to be ranked. */
  ranked: number;
}

export function wantedBefore(): Wanted {
  const mode = kept(MODE);
  const ranked = Number(kept(RANKED));
  return {
    mode: mode === "two" || mode === "several" ? mode : "one",
    ranked: RANKABLE.includes(ranked) ? ranked : USUAL,
  };
}

export function keepWanted({ mode, ranked }: Wanted): void {
  keep(MODE, mode === "one" ? null : mode);
  keep(RANKED, ranked === USUAL ? null : String(ranked));
}

function kept(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function keep(key: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Then it lasts until the chat is left.
  }
}
