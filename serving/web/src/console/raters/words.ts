/** Figures of a rater in words; "" of what is not known. */

import type { Checks, RaterRow } from "../../api/oversight";
import { wilson } from "../parts/wilson";
import { percent, ranged } from "../parts/words";

export const share = (part: number | null): string =>
  part === null ? "" : part > 0 && part < 0.001 ? "< 0.1%" : percent(part);

/** With nobody to agree with, nothing is known of it, whatever weight a round gave. */
export const reliability = (row: Pick<RaterRow, "agreement" | "reliability">): string =>
  row.reliability !== null && row.agreement === null ? "unknown" : share(row.reliability);

const counted = (good: number, bad: number): string => (good + bad === 0 ? "" : `${good} of ${good + bad}`);

/** Decoys that were passed over. */
export const decoys = ({ passed, failed }: Checks): string => counted(passed, failed);

/** Pairs that were judged alike when they came again with sides swapped. */
export const repeats = ({ same, other }: Checks): string => counted(same, other);

/** How often the left one won of what was laid blind: "75% left (12 of 16)". */
export function side({ side: left, checks }: Pick<RaterRow, "side" | "checks">): string {
  return left === null ? "" : `${percent(left, 0)} left (${counted(checks.left, checks.right)})`;
}

/** What share of left they may mean, by that: "95%: 51% to 90%". */
export function sideRange({ side: left, checks }: Pick<RaterRow, "side" | "checks">): string {
  if (left === null) return "";
  return `95%: ${ranged(wilson(left, checks.left + checks.right), (end) => percent(end, 0))}`;
}

/** How many times likelier the worst is than chance; below 1 nothing speaks for it. */
export function evidence(logE: number): string {
  if (logE <= 0) return "nothing speaks against it";
  const times = Math.exp(Math.min(logE, 30));
  return `evidence against it: e = ${times < 1000 ? Number(times.toPrecision(2)) : times.toExponential(1)}`;
}

export const SOURCES: Record<RaterRow["source"], string> = {
  live: "a person",
  operator: "an operator",
  import: "imported",
};

export const SPLITS: Record<RaterRow["split"], string> = {
  train: "trains",
  eval: "decides releases",
  "": "not yet known",
};
