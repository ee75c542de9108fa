import { expect, test } from "vitest";
import type { KeptFeedback } from "../api/client";
import { verdict } from "./SaidBefore";

const kept = (judgement: object) => ({ judgement }) as Pick<KeptFeedback, "judgement">;
const pair = (winner: string) => kept({ type: "comparison", left: "a", right: "b", winner });

test.each([
  ["a", "left", "Your choice of two answers."],
  ["b", "left", "You chose the other answer."],
  ["b", "right", "Your choice of two answers."],
  ["a", "right", "You chose the other answer."],
  ["a", "tie", "You found it as good as the other answer."],
  ["b", "both_bad", "You found it and the other answer bad."],
])("answer %s where %s won", (id, winner, words) => {
  expect(verdict(id, pair(winner))).toBe(words);
});

test("an answer among those that were ranked", () => {
  const ranked = kept({ type: "ranking", candidates: ["a", "b", "c", "d"], ranking: [["c"], ["a", "b"]] });
  expect(["c", "b", "d"].map((id) => verdict(id, ranked))).toEqual([
    "You ranked it at place 1, of 4 answers.",
    "You ranked it at place 2, tied, of 4 answers.",
    "You ranked it below the others, of 4 answers.",
  ]);
  expect(verdict("a", kept({ type: "rating", value: 1 }))).toBeNull();
});
