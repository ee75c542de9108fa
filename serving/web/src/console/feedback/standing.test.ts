import { describe, expect, it } from "vitest";
import { standingOf, targetsOf } from "./standing";

const RANKING = {
  type: "ranking",
  candidates: ["a", "b", "c", "d"],
  ranking: [["c"], ["a", "d"]],
  partial: true,
} as const;

describe("what was said of each answer", () => {
  it("of a ranking is the place, by the order shown", () => {
    const kept = { ...RANKING, candidates: [...RANKING.candidates], ranking: [["c"], ["a", "d"]] };
    expect(targetsOf(kept)).toEqual(["a", "b", "c", "d"]);
    expect(targetsOf(kept).map((id) => standingOf(kept, id))).toEqual([
      { name: "A", said: "place 2 of 2, tied", best: false },
      { name: "B", said: "not ranked", best: false },
      { name: "C", said: "place 1 of 2", best: true },
      { name: "D", said: "place 2 of 2, tied", best: false },
    ]);
  });

  it.each([
    ["left", ["better", true], ["worse", false]],
    ["right", ["worse", false], ["better", true]],
    ["tie", ["equally good", false], ["equally good", false]],
    ["both_bad", ["bad, as the other", false], ["bad, as the other", false]],
  ] as const)("of a comparison that %s won is which side", (winner, left, right) => {
    const kept = { type: "comparison", left: "x", right: "y", winner } as const;
    expect(standingOf(kept, "x")).toEqual({ name: "Left", said: left[0], best: left[1] });
    expect(standingOf(kept, "y")).toEqual({ name: "Right", said: right[0], best: right[1] });
  });
});
