/** What a leaderboard's table does not say, one sentence each. */

import { nameOf, type BoardFigure, type Leaderboard, type Standing } from "../../api/policies";
import { percent } from "../parts/words";

export const within = ({ low, high }: BoardFigure, show: (value: number) => string): string =>
  low === null || high === null ? "unknown" : `${show(low)} to ${show(high)}`;

export const elo = (value: number): string => value.toFixed(0);

/** What the version that all are measured from has. */
export const ANCHORED = 1000;

/** The Elo of a version, or why it has none; that of the anchor needs no votes. */
export function eloOf({ version, elo: found, status }: Standing, { anchor }: Pick<Leaderboard, "anchor">): string {
  if (version === anchor) return elo(ANCHORED);
  if (found !== null) return elo(found.value);
  return status === "no_votes" ? "no votes" : "unknown";
}

export function eloWithin({ version, elo: found }: Standing, { anchor }: Pick<Leaderboard, "anchor">): string {
  if (version === anchor) return "by definition";
  return found === null ? "–" : within(found, elo);
}

export function remarks(board: Leaderboard): string[] {
  const { votes, raters, ties, confidence, anchor, standings } = board;
  if (votes === 0) return ["No votes on different versions yet: lay answers of two versions side by side, and vote."];
  const alone = standings.some(({ strength }) => strength !== null && strength.low === null);
  return [
    `${counted(votes, "vote")} by ${counted(raters, "rater")}, ${ties} of them ties. Intervals are ${percent(confidence)}, ` +
      `with raters as what is independent; ${ANCHORED} is ${nameOf(anchor)}.`,
    ...sided(board.left_wins, "The left one of two equal answers is preferred in"),
    ...sided(board.longer_wins, "One that is twice as long is preferred in"),
    ...fragile(board),
    ...(alone ? ["An interval is unknown where fewer than two raters stand behind it."] : []),
    ...standings.flatMap((standing) => unranked(standing, anchor)),
  ];
}

const sided = (figure: BoardFigure | null, what: string): string[] =>
  figure === null ? [] : [`${what} ${percent(figure.value)} (${sure(figure)}): taken out of Elo.`];

const sure = (figure: BoardFigure): string =>
  figure.low === null ? "interval unknown: one rater" : within(figure, percent);

const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`;

function fragile({ fragility, votes }: Leaderboard): string[] {
  if (fragility === null) return [];
  const leader = nameOf(fragility.leader);
  if (fragility.dropped === null || fragility.rival === null) {
    return [`${leader} stays first whichever half of the votes is dropped, as far as was tried.`];
  }
  const part = percent(fragility.dropped / votes);
  return [`Without ${fragility.dropped} votes (${part}) ${nameOf(fragility.rival)} would be ahead of ${leader}.`];
}

function unranked({ version, status }: Standing, anchor: number): string[] {
  const name = `${nameOf(version)} cannot be ranked:`;
  if (status === "unlinked")
    return [`${name} nothing links it by votes with ${nameOf(anchor)}, not even by way of others.`];
  if (status === "one_sided") return [`${name} it won all votes that link it with ${nameOf(anchor)}, or lost all.`];
  return [];
}
