/** What a key does on the answer that has the focus. Keys never need a chord, so that one hand is enough. */

import { listed, type Move, type Ranking } from "./ranking";

export type KeyDone = { move: Move } | { focus: string } | null;

const CARRIED: Readonly<Record<string, "up" | "down" | "top" | "bottom">> = {
  ArrowUp: "up",
  ArrowDown: "down",
  Home: "top",
  End: "bottom",
};

export function keyDone(ranking: Ranking, focus: string, key: string): KeyDone {
  const id = focus;
  if (/^[1-9]$/.test(key)) return { move: { do: "place", id, place: Number(key) } };
  if (key === "=") return { move: { do: "tie", id } };
  if (key === "0" || key === "Delete" || key === "Backspace") return { move: { do: "shelve", id } };
  if (key === " ") return { move: ranking.lifted ? { do: "drop" } : { do: "lift", id } };
  if (key === "Escape") return ranking.lifted ? { move: { do: "cancel" } } : null;
  const step = CARRIED[key];
  if (!step) return null;
  return ranking.lifted ? { move: { do: step, id: ranking.lifted.id } } : { focus: nextFocus(ranking, focus, step) };
}

function nextFocus(ranking: Ranking, focus: string, step: "up" | "down" | "top" | "bottom"): string {
  const order = listed(ranking);
  const last = order.length - 1;
  const at = order.indexOf(focus);
  const to = { up: Math.max(at - 1, 0), down: Math.min(at + 1, last), top: 0, bottom: last }[step];
  return order[to]!;
}

/** Where the focus goes after a digit: to the next answer, as shown, that has no place yet; else it stays. */
export function afterPlacing(ranking: Ranking, id: string): string {
  const { candidates, places } = ranking;
  const at = candidates.indexOf(id);
  const round = [...candidates.slice(at + 1), ...candidates.slice(0, at)];
  return round.find((other) => places[other] === undefined) ?? id;
}
