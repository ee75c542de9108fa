/** What an open release waits for, in the words of `ratchet release status`. */

import type { Release } from "../../api/releases";
import { clock } from "../parts/words";
import { lapsed, waitsFor, whoseVotes } from "./words";

/** Whose turn it is, or what is still needed; "" where it is about to go on, or somebody paused it. */
export function awaited(release: Release): string {
  if (release.paused) return "";
  if (release.state === "pending") return waitsFor(release);
  if (release.proposed) return confirmation(release);
  const under = release.plan.steps[release.step];
  if (!under || !("analysis" in under)) return "";
  return `It waits for the votes of ${whoseVotes(release.whose)}: ${release.forecast ?? "none is counted yet"}.`;
}

function confirmation(release: Release): string {
  if (lapsed(release)) {
    const or = release.plan.deadline === null ? "" : " or its deadline";
    return (
      "All steps are taken, but the votes that took one no longer say that it is better: it waits until they do " +
      `again${or}: ${release.forecast}. To promote it lets it serve.`
    );
  }
  return release.mode === "automatic"
    ? "All steps are taken: it is promoted by itself, but not while releases are frozen, nor while the self-test alarms."
    : "All steps are taken: to promote it lets it serve, to abort it does not.";
}

/** How the votes still needed are reckoned, and how many may come at most. */
export function neededAs({ still_needed, forecast, plan }: Release): string {
  const as = still_needed === null ? (forecast ?? "none is counted yet") : "as votes go so far";
  const ends = plan.steps.some((step) => "analysis" in step);
  return ends ? `${as}; inconclusive at ${plan.max_votes.toLocaleString("en")} decisive ones` : as;
}

/** How much has passed of the time that bounds it as it stands. */
export function bounds({ passed, plan, step, proposed, by_votes, mode }: Release): string[] {
  if (passed === null) return [];
  const under = plan.steps[step];
  const confirmed = proposed && !(by_votes && mode === "automatic");
  const known: [number, unknown, string][] = [
    [passed.in_step, under && "pause" in under ? under.pause : null, "in this step"],
    [passed.in_all, confirmed ? null : plan.deadline, "until it ends undecided"],
    [passed.unheld, passed.unheld > 0 ? plan.patience : null, "until it is aborted for want of an engine"],
  ];
  return known.flatMap(([seconds, most, what]) =>
    typeof most === "number" ? [`${clock(seconds)} of ${lasting(most)} ${what}`] : [],
  );
}

const UNITS: [name: string, size: number][] = [
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
];

/** In the largest unit that it is a whole number of: 30 minutes, 1 day. */
export function lasting(seconds: number): string {
  const [name, size] = UNITS.find((unit) => seconds >= unit[1] && seconds % unit[1] === 0) ?? ["second", 1];
  const count = seconds / size;
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}
