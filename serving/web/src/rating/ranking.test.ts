import { describe, expect, it } from "vitest";
import { groupsOf, listed, rank, sent, shelfOf, unranked, type Ranking } from "./ranking";
import { afterPlacing, keyDone } from "./ranking_keys";
import { announcement, summary, whereabouts } from "./ranking_words";

const notation = (ranking: Ranking) =>
  `${groupsOf(ranking)
    .map((group) => group.join(""))
    .join(">")}|${shelfOf(ranking).join("")}`;

/** Every ordered partition of every subset, written as above, counted out independently of the reducer. */
function partitions(candidates: string[]): Set<string> {
  const found = new Set<string>();
  const digits = candidates.length + 1;
  for (let code = 0; code < digits ** candidates.length; code++) {
    const place = candidates.map((_, index) => Math.floor(code / digits ** index) % digits);
    const used = [...new Set(place)].filter((each) => each > 0).sort();
    if (used.some((each, index) => each !== index + 1)) continue;
    const at = (wanted: number) => candidates.filter((_, index) => place[index] === wanted).join("");
    found.add(`${used.map(at).join(">")}|${at(0)}`);
  }
  return found;
}

/** All that the given keys reach from nothing ranked, pressed on whichever answer. */
function reachable(candidates: string[], keys: string[]): Set<string> {
  const start = unranked(candidates);
  const seen = new Map([[JSON.stringify(start.places), start]]);
  for (const ranking of seen.values()) {
    for (const id of candidates) {
      let next = ranking;
      for (const key of keys) {
        const lifted = rank(ranking, { do: "lift", id });
        const done = keyDone(lifted, id, key);
        if (done && "move" in done) next = rank(rank(lifted, done.move), { do: "drop" });
        const key_of = JSON.stringify(Object.entries(next.places).sort());
        if (!seen.has(key_of)) seen.set(key_of, next);
      }
    }
  }
  return new Set([...seen.values()].map(notation));
}

const play = (candidates: string, ...moves: [string, string][]) =>
  moves.reduce(
    (ranking, [id, key]) => {
      const lifted = rank(ranking, { do: "lift", id });
      const done = keyDone(lifted, id, key);
      if (!done || !("move" in done)) throw new Error(`${key} moves nothing`);
      return rank(rank(lifted, done.move), { do: "drop" });
    },
    unranked([...candidates]),
  );

describe("keys", () => {
  it.each([
    ["ABC", 26],
    ["ABCD", 150],
  ])("reach each of the partitions of %s, of which there are %i, by arrows and =", (candidates, count) => {
    const all = partitions([...candidates]);
    expect(all.size).toBe(count);
    expect(reachable([...candidates], ["ArrowUp", "ArrowDown", "="])).toEqual(all);
  });

  it.each(["ABC", "ABCD"])("reach each of the partitions of %s by digits alone", (candidates) => {
    expect(reachable([...candidates], ["0", "1", "2", "3", "4"])).toEqual(partitions([...candidates]));
  });

  it("type places in the order shown, the second before the first", () => {
    expect(notation(play("ABC", ["A", "2"], ["B", "1"], ["C", "3"]))).toBe("B>A>C|");
    expect(notation(play("ABC", ["A", "1"], ["B", "1"], ["C", "3"]))).toBe("AB>C|");
    expect(play("ABC", ["A", "9"]).places).toEqual({});
  });

  it("carry an answer out of a tie, past its neighbour, and to the shelf", () => {
    const start = play("ABC", ["A", "1"], ["B", "1"], ["C", "2"]);
    const after = (id: string, key: string) => {
      const lifted = rank(start, { do: "lift", id });
      const done = keyDone(lifted, id, key)!;
      return notation(rank(lifted, (done as { move: Parameters<typeof rank>[1] }).move));
    };
    expect(after("B", "ArrowUp")).toBe("B>A>C|");
    expect(after("A", "ArrowDown")).toBe("B>A>C|");
    expect(after("C", "ArrowUp")).toBe("C>AB|");
    expect(after("C", "ArrowDown")).toBe("AB|C");
    expect(after("C", "=")).toBe("ABC|");
    expect(after("A", "=")).toBe("B>A>C|");
    expect(after("C", "Home")).toBe("C>AB|");
    expect(after("A", "End")).toBe("B>C>A|");
    expect(after("A", "Delete")).toBe("B>C|A");
  });

  it("carry an answer past its neighbours and back, one at a time", () => {
    const placed: [string, string][] = [
      ["A", "1"],
      ["B", "2"],
      ["C", "3"],
    ];
    expect(notation(play("ABC", ...placed, ["A", "ArrowDown"]))).toBe("B>A>C|");
    expect(notation(play("ABC", ...placed, ["A", "ArrowDown"], ["A", "ArrowDown"]))).toBe("B>C>A|");
    expect(notation(play("ABC", ...placed, ["C", "ArrowUp"], ["C", "ArrowUp"], ["C", "ArrowUp"]))).toBe("C>A>B|");
    expect(notation(play("ABC", ...placed, ["C", "ArrowDown"], ["C", "ArrowDown"], ["C", "ArrowUp"]))).toBe("A>B>C|");
  });

  it("move the focus while nothing is lifted", () => {
    const start = play("ABC", ["C", "1"], ["A", "2"]);
    expect(listed(start)).toEqual(["C", "A", "B"]);
    expect(keyDone(start, "A", "ArrowUp")).toEqual({ focus: "C" });
    expect(keyDone(start, "C", "ArrowUp")).toEqual({ focus: "C" });
    expect(keyDone(start, "A", "End")).toEqual({ focus: "B" });
    expect(keyDone(start, "A", "x")).toBeNull();
    expect(keyDone(start, "A", "Escape")).toBeNull();
    expect(afterPlacing(start, "A")).toBe("B");
    expect(afterPlacing(play("AB", ["A", "1"], ["B", "2"]), "B")).toBe("B");
  });

  it("put a lifted answer back by Escape", () => {
    let ranking = rank(play("AB", ["A", "1"]), { do: "lift", id: "A" });
    ranking = rank(ranking, { do: "down", id: "A" });
    expect(notation(ranking)).toBe("|AB");
    expect(notation(rank(ranking, { do: "cancel" }))).toBe("A|B");
  });
});

describe("a dragged answer", () => {
  const start = play("ABCD", ["A", "1"], ["B", "2"], ["C", "3"]);
  const dropped = (id: string, spot: Parameters<typeof rank>[1] & { do: "put" }) =>
    notation(rank(start, { ...spot, id }));
  const put = (spot: { at: "gap" | "place"; index: number } | { at: "shelf" }) => ({
    do: "put" as const,
    id: "",
    spot,
  });

  it("lands in the gap that was shown, whether its own place empties or not", () => {
    expect(dropped("A", put({ at: "gap", index: 3 }))).toBe("B>C>A|D");
    expect(dropped("C", put({ at: "gap", index: 0 }))).toBe("C>A>B|D");
    expect(dropped("D", put({ at: "gap", index: 1 }))).toBe("A>D>B>C|");
    expect(dropped("B", put({ at: "gap", index: 1 }))).toBe("A>B>C|D");
    expect(dropped("B", put({ at: "gap", index: 2 }))).toBe("A>B>C|D");
  });

  it("ties on another, and comes off on the shelf", () => {
    expect(dropped("A", put({ at: "place", index: 2 }))).toBe("B>AC|D");
    expect(dropped("A", put({ at: "place", index: 0 }))).toBe("A>B>C|D");
    expect(dropped("D", put({ at: "place", index: 1 }))).toBe("A>BD>C|");
    expect(dropped("A", put({ at: "shelf" }))).toBe("B>C|AD");
  });
});

describe("what is sent", () => {
  it("is dense, and partial where the shelf holds something", () => {
    expect(sent(play("ABC", ["A", "3"], ["B", "1"]))).toEqual({
      ranking: [["B"], ["A"]],
      partial: true,
      none_acceptable: false,
    });
    expect(sent(play("AB", ["A", "1"], ["B", "1"]))).toEqual({
      ranking: [["A", "B"]],
      partial: false,
      none_acceptable: false,
    });
  });

  it("is nothing before anything was said, and one bad tie where that is all", () => {
    expect(sent(unranked(["A", "B"]))).toBeNull();
    expect(sent(rank(unranked(["A", "B"]), { do: "none_acceptable", is: true }))).toEqual({
      ranking: [["A", "B"]],
      partial: false,
      none_acceptable: true,
    });
  });
});

describe("words", () => {
  const ranking = play("ABCD", ["B", "1"], ["A", "2"], ["D", "2"]);

  it("tell where an answer lies", () => {
    expect(whereabouts(ranking, "B")).toBe("place 1 of 2");
    expect(whereabouts(ranking, "D")).toBe("place 2 of 2, tied with A");
    expect(whereabouts(ranking, "C")).toBe("not ranked");
    expect(summary(ranking)).toBe("B > A = D; not ranked: C");
    expect(summary(unranked(["A"]))).toBe("Nothing is ranked yet.");
  });

  it("announce each move", () => {
    const lifted = rank(ranking, { do: "lift", id: "C" });
    expect(announcement(ranking, lifted, "C")).toContain("Answer C lifted, not ranked.");
    const up = rank(lifted, { do: "up", id: "C" });
    expect(announcement(lifted, up, "C")).toBe("Answer C, place 3 of 3.");
    expect(announcement(up, rank(up, { do: "drop" }), "C")).toBe("Answer C dropped, place 3 of 3.");
    expect(announcement(up, rank(up, { do: "cancel" }), "C")).toBe("Answer C put back, not ranked.");
    const top = rank(ranking, { do: "lift", id: "B" });
    expect(announcement(top, rank(top, { do: "up", id: "B" }), "B")).toBe("Answer B stays, place 1 of 2.");
  });
});
