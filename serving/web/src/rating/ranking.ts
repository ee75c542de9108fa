/**
 * The ranking of K answers as an ordered set partition: each answer has a place, counted from 1, or lies on the shelf.
 *
 * Answers of one place are tied. Places may have gaps while somebody types them (2, 1, 3 for A, B, C); what is sent,
 * and what every move but a digit leaves behind, is dense.
 */

export type Places = Readonly<Record<string, number>>;

export interface Ranking {
  /** The answers in the order shown, which is also their order within a place and on the shelf. */
  readonly candidates: readonly string[];
  readonly places: Places;
  readonly noneAcceptable: boolean;
  /** The answer that the arrows carry, and the places to go back to if it is let go by Escape. */
  readonly lifted: { readonly id: string; readonly before: Places } | null;
}

export type Spot = { at: "gap"; index: number } | { at: "place"; index: number } | { at: "shelf" };

export type Move =
  | { do: "up" | "down" | "tie" | "top" | "bottom" | "shelve" | "lift"; id: string }
  | { do: "place"; id: string; place: number }
  | { do: "put"; id: string; spot: Spot }
  | { do: "drop" | "cancel" | "clear" }
  | { do: "none_acceptable"; is: boolean };

export function unranked(candidates: readonly string[]): Ranking {
  return { candidates, places: {}, noneAcceptable: false, lifted: null };
}

/** `begun` goes on if it is of these answers, with nothing in hand. */
export function resumed(candidates: readonly string[], begun: Ranking | null): Ranking {
  const same = begun?.candidates.length === candidates.length && candidates.every((id, at) => begun.candidates[at] === id);
  return same ? { ...begun, lifted: null } : unranked(candidates);
}

/** The answers by place, best first, without gaps. */
export function groupsOf({ candidates, places }: Pick<Ranking, "candidates" | "places">): string[][] {
  const taken = [...new Set(Object.values(places))].sort((one, other) => one - other);
  return taken.map((place) => candidates.filter((id) => places[id] === place));
}

export function shelfOf({ candidates, places }: Pick<Ranking, "candidates" | "places">): string[] {
  return candidates.filter((id) => places[id] === undefined);
}

/** The order in which the answers are listed: by place, then the shelf. */
export function listed(ranking: Ranking): string[] {
  return [...groupsOf(ranking).flat(), ...shelfOf(ranking)];
}

function dense(groups: readonly (readonly string[])[]): Places {
  const filled = groups.filter((group) => group.length > 0);
  return Object.fromEntries(filled.flatMap((group, index) => group.map((id) => [id, index + 1])));
}

/** The groups without one answer; its place stays behind, empty, if it was alone there. */
function without(groups: readonly string[][], id: string): string[][] {
  return groups.map((group) => group.filter((other) => other !== id));
}

/** One step towards the best: out of a tie to just above it, else past the place above; from the shelf to the last. */
function up(groups: string[][], id: string): string[][] {
  const from = groups.findIndex((group) => group.includes(id));
  const rest = without(groups, id);
  if (from < 0) return [...rest, [id]];
  const alone = groups[from]!.length === 1;
  return rest.toSpliced(alone ? Math.max(from - 1, 0) : from, 0, [id]);
}

/** One step towards the shelf, onto which an answer goes that is alone in the last place. */
function down(groups: string[][], id: string): string[][] {
  const from = groups.findIndex((group) => group.includes(id));
  if (from < 0) return groups;
  const alone = groups[from]!.length === 1;
  if (alone && from === groups.length - 1) return without(groups, id);
  return without(groups, id).toSpliced(alone ? from + 2 : from + 1, 0, [id]);
}

/** Alone: joins the place above. Tied: leaves the tie for a place of its own just below. */
function tie(groups: string[][], id: string): string[][] {
  const from = groups.findIndex((group) => group.includes(id));
  if (from === 0 && groups[0]!.length === 1) return groups;
  const rest = without(groups, id);
  if (from >= 0 && groups[from]!.length > 1) return rest.toSpliced(from + 1, 0, [id]);
  const above = from < 0 ? groups.length - 1 : from - 1;
  if (above < 0) return [[id]];
  return rest.map((group, index) => (index === above ? [...group, id] : group));
}

function put(groups: string[][], id: string, spot: Spot): string[][] {
  const rest = without(groups, id);
  if (spot.at === "shelf") return rest;
  if (spot.at === "gap") return rest.toSpliced(spot.index, 0, [id]);
  return rest.map((group, index) => (index === spot.index ? [...group, id] : group));
}

function moved(groups: string[][], move: Extract<Move, { id: string }>): string[][] {
  const { id } = move;
  if (move.do === "up") return up(groups, id);
  if (move.do === "down") return down(groups, id);
  if (move.do === "tie") return tie(groups, id);
  if (move.do === "top") return [[id], ...without(groups, id)];
  if (move.do === "bottom") return [...without(groups, id), [id]];
  if (move.do === "put") return put(groups, id, move.spot);
  return move.do === "shelve" ? without(groups, id) : groups;
}

export function rank(ranking: Ranking, move: Move): Ranking {
  const { candidates, places, lifted } = ranking;
  switch (move.do) {
    case "lift":
      return { ...ranking, lifted: { id: move.id, before: places } };
    case "drop":
      return { ...ranking, lifted: null };
    case "cancel":
      return { ...ranking, lifted: null, places: lifted?.before ?? places };
    case "clear":
      return unranked(candidates);
    case "none_acceptable":
      return { ...ranking, noneAcceptable: move.is };
    case "place":
      if (move.place < 1 || move.place > candidates.length) return ranking;
      return { ...ranking, places: { ...places, [move.id]: move.place } };
    default:
      return { ...ranking, places: dense(moved(groupsOf(ranking), move)) };
  }
}

export interface RankingSent {
  ranking: string[][];
  partial: boolean;
  none_acceptable: boolean;
}

/** What the ledger is told; null while nothing is said. "None is acceptable" alone is one tie of all. */
export function sent(ranking: Ranking): RankingSent | null {
  const groups = groupsOf(ranking);
  const none_acceptable = ranking.noneAcceptable;
  if (groups.length === 0) {
    return none_acceptable ? { ranking: [[...ranking.candidates]], partial: false, none_acceptable } : null;
  }
  return { ranking: groups, partial: shelfOf(ranking).length > 0, none_acceptable };
}
