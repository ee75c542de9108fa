/** What is told of a release, in words. */

import type { Estimated, Guardrail, Mode, Order, Release } from "../../api/releases";
import { nameOf } from "../../api/policies";
import { percent } from "../parts/words";

const signed = (points: number): string => `${points < 0 ? "−" : "+"}${Math.abs(points).toFixed(1)}`;

/** A difference of shares, in points of a percent. */
export const points = ({ value, low, high }: Estimated): string =>
  `${signed(100 * value)} points (${signed(100 * low)} to ${signed(100 * high)})`;

export const MODES: Record<Mode, string> = {
  manual: "manual (operators begin it and promote it)",
  assisted: "assisted (it begins by itself where one passes the gate, and an operator promotes)",
  automatic: "automatic (it begins and promotes by itself)",
};

/** Of one that an operator begins: who ends it. `manual` and `assisted` differ in who begins, and so not here. */
export const ENDS: Partial<Record<Mode, string>> = {
  assisted: "it proposes, and an operator promotes",
  automatic: "it promotes by itself",
};

/** How it ends, whoever begins it. */
export const endOf = (mode: Mode): string => ENDS[mode === "manual" ? "assisted" : mode]!;

/** Whether its plan itself waits, where nobody said pause. */
export const waitsForOperator = ({ paused, is }: Pick<Release, "paused" | "is">): boolean =>
  paused && is.startsWith("waiting");

/** Where it is, without the word that its badge shows. */
export const whereOf = (release: Release): string => release.is.replace(/^\w+, /, "");

/** Of a pending release, what it waits for. */
export function waitsFor({ candidate, engine }: Pick<Release, "candidate" | "engine">): string {
  const name = nameOf(candidate);
  const state = engine?.state ?? "none";
  const cause = engine?.cause ? `: ${engine.cause}` : "";
  const stands = state === "none" ? "There is none yet" : `That engine is ${state}`;
  return `It waits for an engine to hold ${name}; no votes can come before. ${stands}${cause}.`;
}

export const whoseVotes = (whose: Release["whose"]): string =>
  whose === "evaluation" ? "raters who never train" : "all raters";

/** With how many voters a release can reckon. */
export const mayVote = ({ may_vote }: Release["voters"]): string | null =>
  may_vote === null ? null : `${may_vote} who may vote were known when it began`;

const BY_VOTES: Partial<Record<Release["state"], Release["outcome"]>> = {
  promoted: "promote",
  rolled_back: "roll back",
  inconclusive: "inconclusive",
};

/** Whether it ended as the votes, or a guardrail, had it: by hand it may end otherwise. */
export const decidedByVotes = ({ state, outcome }: Pick<Release, "state" | "outcome">): boolean =>
  outcome !== null && BY_VOTES[state] === outcome;

/** Of an automatic one whose votes took a step, whether they would no longer take it. */
export const lapsed = ({ mode, by_votes, outcome }: Pick<Release, "mode" | "by_votes" | "outcome">): boolean =>
  mode === "automatic" && by_votes && outcome !== null && outcome !== "promote";

/** In a sentence; of what is over and was not decided it says no more what is needed. */
export function whatVotesSay({ open, outcome, votes, says }: Release): string {
  if (open || votes === null || outcome !== "undecided") return says ?? "";
  return `The candidate had won ${votes.won} of ${votes.won + votes.lost} decisive votes, which decided nothing.`;
}

export const evidenceFor = ({ evidence, candidate, stable }: Release): string =>
  evidence === null ? "" : nameOf(evidence.for === "candidate" ? candidate : stable);

/** Of the evidence that a decision needs, what share is there. */
export const shareOfEvidence = (evidence: NonNullable<Release["evidence"]>): number =>
  Math.min(Math.max(evidence.log_e / evidence.threshold, 0), 1);

const GUARDRAILS: Record<string, string> = {
  errors: "Failed answers",
  refusals: "Refusals",
  first_token: "Time to the first token",
  length: "Length of answers",
  score: "Mean score",
};

export const guardrailName = (name: string): string => GUARDRAILS[name] ?? name.replaceAll("_", " ");

/** All are ratios to stable's figure, but for the score, which is lower by so much. */
export const guardrailFigure = ({ name }: Guardrail, value: number): string =>
  name !== "score"
    ? `${value.toFixed(2)} × stable`
    : value < 0
      ? `${(-value).toFixed(2)} higher`
      : `${value.toFixed(2)} lower`;

/** Its ends as what was found is told, and once where both are told alike. */
export function guardrailRange(guardrail: Guardrail): string | null {
  if (guardrail.interval === null) return null;
  const { low, high } = guardrail.interval;
  const [from, to] = [guardrailFigure(guardrail, low), guardrailFigure(guardrail, high)];
  return `${from.replace(/ × stable$/, "")} to ${to}`;
}

const FAILURES = ["errors", "refusals"];

/** What was found: to a stable that never failed there is no ratio, be the candidate ever so bad. */
export function guardrailFound(guardrail: Guardrail): string {
  if (guardrail.value !== null) return guardrailFigure(guardrail, guardrail.value);
  return FAILURES.includes(guardrail.name) && guardrail.units.stable > 0 ? "stable never failed" : "–";
}

/** Of an interval that may be looked at whenever one likes. */
export const atAllTimes = (alpha: number): string => `${percent(1 - alpha)} at all times together`;

export interface Consequence {
  title: string;
  action: string;
  says: string;
}

/** What an order does to the release as it is shown, told before it is given. */
export function consequence(release: Release, order: Order, full = false): Consequence {
  const [candidate, stable] = [nameOf(release.candidate), nameOf(release.stable)];
  const alone = `${candidate} gets no more conversations: ${stable} answers all of them.`;
  switch (order) {
    case "promote":
      return full || release.proposed ? serving(release) : passing(release);
    case "pause":
      return {
        title: `Pause release ${release.id}?`,
        action: "Pause",
        says:
          `No step is taken until somebody resumes it. ${candidate} keeps ${percent(release.weight)} of the ` +
          "conversations, votes are counted on, and if it proves worse it is still rolled back.",
      };
    case "resume":
      return { title: `Resume release ${release.id}?`, action: "Resume", says: resuming(release) };
    case "abort":
      return {
        title: `Abort release ${release.id}?`,
        action: "Abort",
        says: `${alone} Nothing is held against ${candidate}: it is what it was before, and may be released again.`,
      };
    case "rollback":
      return {
        title: `Roll back release ${release.id}?`,
        action: "Roll back",
        says: `${alone} ${candidate} counts as worse from now on.`,
      };
  }
}

function serving(release: Release): Consequence {
  const [candidate, stable] = [nameOf(release.candidate), nameOf(release.stable)];
  const left = release.steps.filter((step) => step.state !== "taken").length;
  const skipped = left === 0 ? "" : left === 1 ? "The last step is left out. " : `${left} steps are left out. `;
  const proof = release.state === "pending" ? " No engine holds it yet: it is proven before it serves." : "";
  return {
    title: `Let ${candidate} serve everybody?`,
    action: "Promote",
    says: `${skipped}${candidate} becomes the stable policy in place of ${stable}, and this release ends.${proof}`,
  };
}

function passing(release: Release): Consequence {
  const under = release.steps[release.step];
  const next = release.steps[release.step + 1];
  const then =
    next !== undefined
      ? `Next comes “${next.says}”.`
      : release.mode === "automatic" && !lapsed(release)
        ? `It is the last one: then ${nameOf(release.candidate)} serves everybody.`
        : `It is the last one: then the release is proposed, and waits for ${lapsed(release) ? "the votes to say again that it is better" : "an operator to promote it"}.`;
  return {
    title: `Pass the step under way of release ${release.id}?`,
    action: "Pass the step",
    says: `“${under?.says ?? "The step under way"}” counts as taken, whatever it still waits for. ${then}`,
  };
}

function resuming(release: Release): string {
  const under = release.steps[release.step];
  if (under?.says === "wait for an operator") {
    const next = release.steps[release.step + 1];
    return `The wait for an operator is over. ${next ? `Next comes “${next.says}”.` : "It was the last step."}`;
  }
  return `It goes on with “${under?.says ?? "its last step"}”; the time it was paused does not count as waiting.`;
}
