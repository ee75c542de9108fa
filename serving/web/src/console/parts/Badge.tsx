import type { ReactNode } from "react";

/** `busy` is under way, `plain` says neither good nor bad. */
export type Tone = "good" | "bad" | "busy" | "plain";

/** A state in a word: the colour only repeats what the word says. */
export const Badge = ({ tone = "plain", children }: { tone?: Tone; children: ReactNode }) => (
  <span className={`c-badge c-${tone}`}>{children}</span>
);
