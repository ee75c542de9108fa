/** Releases: a candidate let in step by step beside the stable policy, watched, and ended (GET /openapi.json). */

import { get, post } from "./client";

export type Mode = "manual" | "assisted" | "automatic";
export type ReleaseState = "pending" | "canary" | "promoted" | "rolled_back" | "inconclusive" | "aborted" | "replaced";

/** A value with its confidence interval. */
export interface Estimated {
  value: number;
  low: number;
  high: number;
}

export type Step = { set_weight: number } | { pause: number | string | null } | { analysis: true };

export interface Plan {
  steps: Step[];
  interleave: number;
  raters: Electorate;
  alpha: number;
  /** `alpha` is that of each guardrail. */
  limits: { alpha: number };
  max_votes: number;
  patience: number;
  deadline: number | null;
  [field: string]: unknown;
}

export type Electorate = "auto" | "evaluation" | "all";

export interface SelfTest {
  votes: number;
  wins: number;
  log_e: number;
  threshold: number;
  alarm: boolean;
  says: string;
}

export interface Guardrail {
  name: string;
  verdict: "ok" | "breached" | "unknown";
  value: number | null;
  limit: number;
  interval: Estimated | null;
  units: { candidate: number; stable: number };
}

export interface Release {
  object: "release";
  id: number;
  revision: number;
  candidate: number;
  stable: number;
  mode: Mode;
  whose: "evaluation" | "all";
  actor: string;
  reason: string;
  created: number;
  ended: number | null;
  state: ReleaseState;
  /** Where it is, in a few words. */
  is: string;
  /** Why it ended. */
  why: string;
  open: boolean;
  paused: boolean;
  paused_at: number | null;
  /** Empty where the plan itself waits for an operator. */
  paused_by: string;
  paused_why: string;
  proposed: boolean;
  /** Votes took a step: it is promoted by itself only while they still say so. */
  by_votes: boolean;
  plan: Plan;
  step: number;
  steps: { says: string; state: "taken" | "under way" | "to come" | "not taken" }[];
  weight: number;
  engine: { version: number; state: string | null; cause: string | null } | null;
  self_test: SelfTest | null;
  /** Seconds of its own time, and those in a row in which no engine held the candidate; null once it is over. */
  passed: { in_step: number; in_all: number; unheld: number } | null;
  outcome: "promote" | "roll back" | "inconclusive" | "undecided" | null;
  /** What the votes say, in a sentence. */
  says: string | null;
  votes: { won: number; lost: number; tied: number; not_counted: number } | null;
  /** How many people, never who; of older releases not known. */
  voters: { voted: number | null; may_vote: number | null };
  win_rate: Estimated | null;
  evidence: { for: "stable" | "candidate"; log_e: number; threshold: number } | null;
  still_needed: number | null;
  forecast: string | null;
  thumbs: Estimated | null;
  left_wins: Estimated | null;
  guardrails: Guardrail[];
}

export interface ReleaseLine {
  time: number;
  actor: string;
  reason: string;
  is: string;
  state: ReleaseState;
  revision: number;
  step: number;
  weight: number;
}

export interface ReleaseInFull extends Release {
  history: ReleaseLine[];
}

/** What becomes of a version that passes its gate, and a release as it would begin now without wishes. */
export interface UsualRelease {
  /** `mode` is another one only where this is direct. */
  setting: Mode | "direct";
  /** What becomes of it, in sentences. */
  says: string;
  mode: Mode;
  plan: Plan | null;
  steps: Release["steps"];
  /** Why the plan cannot be read, so that no release can begin by it. */
  broken: string | null;
}

export interface ReleaseList {
  data: Release[];
  /** There are older ones. */
  has_more: boolean;
  open: number | null;
  frozen: boolean;
  usual: UsualRelease;
}

/** The e-process after a counted vote; log_e decides at the threshold. */
export interface EvidencePoint {
  vote: number;
  time: number;
  log_e: number;
  log_e_better: number;
  log_e_worse: number;
  wins: number;
  losses: number;
  ties: number;
  win_rate: Estimated;
}

export interface ReleaseEvidence {
  release: number;
  threshold: number;
  data: EvidencePoint[];
}

/** What is left out is as the installation's release.json has it, or the default. */
export interface NewRelease {
  candidate: string;
  mode?: Mode;
  reason?: string;
  /** The release that must be open, null for none. */
  replaces: number | null;
  strategy?: { steps: Step[] };
  plan?: { raters?: Electorate };
}

export type Order = "promote" | "pause" | "resume" | "abort" | "rollback";

export interface Told {
  /** Without one the record says that it was asked for over the API. */
  reason?: string;
  /** Refused with 409 if it is no longer this one. */
  revision?: number;
  /** With promote: leave out all steps to come. */
  full?: boolean;
}

export const releases = {
  /** The newest, or those before one. */
  list: (signal?: AbortSignal, before?: number, limit = 50) =>
    get<ReleaseList>("/v1/releases", { query: { limit, before }, ...(signal && { signal }) }),
  get: (id: string, signal?: AbortSignal) => get<ReleaseInFull>(`/v1/releases/${encodeURIComponent(id)}`, signal && { signal }),
  evidence: (id: number, signal?: AbortSignal) =>
    get<ReleaseEvidence>(`/v1/releases/${id}/evidence`, signal && { signal }),
  frozen: (signal?: AbortSignal) =>
    get<{ frozen: boolean }>("/v1/releases/freeze", signal && { signal }).then(({ frozen }) => frozen),
  resetSelfTest: () => post<SelfTest>("/v1/releases/self-test", { reset: true }),
  start: (wish: NewRelease) => post<Release>("/v1/releases", wish),
  order: (id: number, order: Order, told: Told) => post<Release>(`/v1/releases/${id}/${order}`, told),
};
