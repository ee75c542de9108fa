/** The ranking in words: for screen readers after each move, and for everybody under the list. */

import { groupsOf, shelfOf, type Ranking } from "./ranking";

export function letterOf(ranking: Pick<Ranking, "candidates">, id: string): string {
  return String.fromCharCode("A".charCodeAt(0) + ranking.candidates.indexOf(id));
}

function letters(ranking: Ranking, ids: readonly string[]): string {
  return ids.map((id) => letterOf(ranking, id)).join(", ");
}

/** "place 2 of 3, tied with A, D", or "not ranked". */
export function whereabouts(ranking: Ranking, id: string): string {
  const groups = groupsOf(ranking);
  const index = groups.findIndex((group) => group.includes(id));
  if (index < 0) return "not ranked";
  const tied = groups[index]!.filter((other) => other !== id);
  return `place ${index + 1} of ${groups.length}${tied.length ? `, tied with ${letters(ranking, tied)}` : ""}`;
}

/** "B > A = D > C", with what lies on the shelf behind. */
export function summary(ranking: Ranking): string {
  const shelf = shelfOf(ranking);
  const ranked = groupsOf(ranking).map((group) => group.map((id) => letterOf(ranking, id)).join(" = "));
  if (!ranked.length) return ranking.noneAcceptable ? "None is acceptable." : "Nothing is ranked yet.";
  const left = shelf.length ? `; not ranked: ${letters(ranking, shelf)}` : "";
  return `${ranked.join(" > ")}${left}${ranking.noneAcceptable ? "; none is acceptable" : ""}`;
}

/** What a screen reader says when a ranking became another. */
export function announcement(before: Ranking, after: Ranking, id: string | null): string {
  const answer = id === null ? "" : `Answer ${letterOf(after, id)}`;
  if (before.noneAcceptable !== after.noneAcceptable) {
    return after.noneAcceptable ? "None is acceptable." : "At least one is acceptable.";
  }
  if (id === null) return summary(after);
  if (!before.lifted && after.lifted) {
    return `${answer} lifted, ${whereabouts(after, id)}. Arrows move it, = ties it, space drops it, Escape returns it.`;
  }
  if (before.lifted && !after.lifted) {
    const same = before.places === after.places;
    return `${answer} ${same ? "dropped" : "put back"}, ${whereabouts(after, id)}.`;
  }
  const was = whereabouts(before, id);
  const is = whereabouts(after, id);
  return was === is ? `${answer} stays, ${is}.` : `${answer}, ${is}.`;
}
