/** What a judgement says of each answer that it is about. */

import type { Judgement } from "../../api/client";

type Kept = Record<string, unknown> & { type: Judgement["type"] };

/** The completions that it judges, in the order in which they stood. */
export function targetsOf(judgement: Kept): string[] {
  switch (judgement.type) {
    case "comparison":
      return [judgement.left as string, judgement.right as string];
    case "ranking":
      return judgement.candidates as string[];
    default:
      return [judgement.completion_id as string];
  }
}

export interface Standing {
  /** How the page called the answer: "Left", "Right", "A", "B" ... */
  name: string;
  /** What was said of it: "better", "place 1 of 2, tied". */
  said: string;
  best: boolean;
}

export function standingOf(judgement: Kept, target: string): Standing {
  if (judgement.type === "comparison") return compared(judgement, target);
  if (judgement.type === "ranking") return ranked(judgement, target);
  return { name: "Answer", said: "", best: false };
}

function compared({ left, winner }: Kept, target: string): Standing {
  const side = target === left ? "left" : "right";
  const tied: Record<string, string> = { tie: "equally good", both_bad: "bad, as the other" };
  const said = tied[String(winner)] ?? (winner === side ? "better" : "worse");
  return { name: side === "left" ? "Left" : "Right", said, best: winner === side };
}

function ranked(judgement: Kept, target: string): Standing {
  const groups = judgement.ranking as string[][];
  const name = String.fromCharCode("A".charCodeAt(0) + (judgement.candidates as string[]).indexOf(target));
  const place = groups.findIndex((group) => group.includes(target));
  if (place < 0) return { name, said: "not ranked", best: false };
  const tied = groups[place]!.length > 1 ? ", tied" : "";
  return { name, said: `place ${place + 1} of ${groups.length}${tied}`, best: place === 0 };
}
