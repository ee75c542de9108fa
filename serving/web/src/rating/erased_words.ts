/** What erasing does to a round of training that is under way: said before, and told after. */

export const ROUNDS_BEGIN_AGAIN =
  "A round of training that has collected some of it begins again without it; one that has done so twice goes on with it.";

export interface RoundsAfter {
  restarted: number[];
  learning: number[];
}

const named = (rounds: number[]): string => `${rounds.length === 1 ? "Round" : "Rounds"} ${rounds.join(", ")}`;

export const collectAgain = (rounds: number[]): string =>
  `${named(rounds)} had collected some of it, and collects again without.`;

/** A sentence each; none where no round had to do with it. */
export function roundsWords({ restarted, learning }: RoundsAfter): string[] {
  const again = restarted.length ? [collectAgain(restarted)] : [];
  return learning.length ? [...again, `${named(learning)} had begun again twice, and learns from it.`] : again;
}
