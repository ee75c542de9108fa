import { describe, expect, it } from "vitest";
import { wordDiff, wordsOf } from "./diff";

const shown = (before: string, after: string) =>
  wordDiff(before, after)
    .map(({ kind, text }) => ({ same: text, added: `{+${text}+}`, removed: `[-${text}-]` })[kind])
    .join("");

describe("a diff by word", () => {
  it.each([
    ["The sky is blue.", "The sky is blue.", "The sky is blue."],
    ["The sky is blue.", "The sky is deep blue.", "The sky is {+deep +}blue."],
    ["one two three", "one three", "one [-two -]three"],
    ["a red car", "a green car", "a [-red-]{+green+} car"],
    ["Yes", "Yes, Größe 9", "Yes{+, Größe 9+}"],
    ["", "new", "{+new+}"],
    ["old", "", "[-old-]"],
  ])("of %j and %j", (before, after, expected) => {
    expect(shown(before, after)).toBe(expected);
  });

  it("gives both texts back, however long and different", () => {
    const words = (seed: number, count: number) =>
      Array.from({ length: count }, (_, index) => ["so", "it", "goes", "on\n"][(index * seed + (index >> 2)) % 4]).join(
        " ",
      );
    for (const [before, after] of [
      [words(3, 300), words(5, 280)],
      [words(1, 4000), words(2, 4000)],
    ] as const) {
      const pieces = wordDiff(before, after);
      const without = (kind: string) =>
        pieces
          .filter((piece) => piece.kind !== kind)
          .map(({ text }) => text)
          .join("");
      expect(without("added")).toBe(before);
      expect(without("removed")).toBe(after);
    }
  });

  it("splits nothing off", () => {
    const text = "  Don't — 3.5 €\n\tπ_1 🙂";
    expect(wordsOf(text).join("")).toBe(text);
  });
});
