/** The votes on answers side by side: what each is called, the keys for it, and what the gateway is told. */

import type { LetterWinner, PairWinner, Said } from "../api/feedback";
import { letter, type Answers } from "./answers";

export interface Vote {
  winner: PairWinner | LetterWinner;
  label: string;
  /** The first is shown on the button. */
  keys: readonly string[];
}

export function votesOn(count: number): Vote[] {
  const pair = count === 2;
  const better = Array.from({ length: count }, (_, slot) => ({
    winner: pair ? (["left", "right"] as const)[slot]! : (letter(slot) as LetterWinner),
    label: pair ? `${letter(slot)} is better` : `${letter(slot)} is best`,
    keys: [letter(slot), String(slot + 1)],
  }));
  return [
    ...better,
    { winner: "tie", label: "Tie", keys: ["T", "0"] },
    { winner: pair ? "both_bad" : "none", label: pair ? "Both bad" : "All bad", keys: ["N", "-"] },
  ];
}

/** Of a blind offer by its id, which is what makes it count; of other pairs by their ids. */
export function voteSaid(answers: Answers, winner: Vote["winner"], shownAt: number, answeredAt: number): Said {
  const [left, right] = answers.completionIds;
  const around = { shown_at: shownAt, answered_at: answeredAt, presented_order: [...answers.completionIds] };
  if (answers.comparisonId) return { type: "comparison", comparison_id: answers.comparisonId, winner, ...around };
  return { type: "comparison", left: left!, right: right!, winner: winner as PairWinner, ...around };
}

/** Who wrote the slot: by left and right of two, by letters of more. */
export function writerOf(
  reveal: Readonly<Record<string, string>> | undefined,
  count: number,
  slot: number,
): string | null {
  const name = count === 2 ? ["left", "right"][slot]! : letter(slot);
  return reveal?.[name] ?? null;
}
