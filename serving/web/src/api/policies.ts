/** Policy versions: where they come from, what the gate measured, which people prefer (GET /openapi.json). */

import { get, post } from "./client";

export type PolicyState = "candidate" | "canary" | "stable" | "retired" | "rejected" | "rolled_back" | string;

export interface Policy {
  object: "policy";
  /** Such as policy-v7. */
  id: string;
  version: number;
  state: PolicyState;
  served: boolean;
  pinned: boolean;
  /** Why its directory cannot be read; then the fields below are missing. */
  broken?: string;
  parent?: number | null;
  kind?: "base" | "trained";
  base_model?: string;
  created?: number;
  metrics?: Record<string, unknown>;
  lineage?: Record<string, unknown>;
}

export interface PolicyList {
  data: Policy[];
  stable: number | null;
  /** Where a rollback returns to. */
  previous: number | null;
  served: number | null;
  candidate_served: number | null;
  last_swap: Record<string, unknown> | null;
}

/** Whether `value` stands to `threshold` as `sign` says. */
export interface GateCheck {
  name: string;
  value: number | null;
  sign: string;
  threshold: number | null;
  passed: boolean;
}

/** How PPO went; what an older Ratchet did not keep yet is null. */
export interface Curves {
  iterations: number[];
  score: number[];
  kl: number[];
  entropy: number[];
  length: number[];
  clip_fraction: number[];
  explained_variance: number[];
  approx_kl?: number[] | null;
  value_clip_fraction?: number[] | null;
  finished?: number[] | null;
  repetition?: number[] | null;
  importance_ratio?: number[] | null;
  effective_share?: number[] | null;
}

/** A mean with its interval. */
export interface Bounds {
  mean: number;
  low: number;
  high: number;
}

/** Pairs of like confidence: how sure the scores were of a winner, and how often that one was preferred. */
export interface Bin {
  predicted: number;
  observed: number;
  pairs: number;
}

/** How well a reward model's scores fit what people said of prompts that it never saw. */
export interface Fit {
  prompts: number;
  rankings: number;
  pairs: number;
  ties: number;
  confidence: number;
  accuracy: Bounds;
  log_loss: Bounds;
  brier: Bounds;
  ece: Bounds;
  kendall_tau: Bounds | null;
  length_slope: Bounds | null;
  agreement: Bounds | null;
  agreement_pairs: number;
  bins: Bin[];
  lengths: { name: string; pairs: number; accuracy: number }[];
}

export interface PolicyFacts extends Policy {
  config: Record<string, unknown>;
  ancestors: number[];
  descendants: number[];
  gate: GateCheck[];
  round: number | null;
  reward_fit: Fit | null;
  curves: Curves | null;
  judgements: Record<string, number>;
}

export type Pairs = Record<string, [unknown, unknown]>;

/** What two versions say to one prompt; cut, it would have gone on, and null is not known. */
export interface AnsweredPrompt {
  prompt: string;
  left: string;
  right: string;
  left_cut?: boolean | null;
  right_cut?: boolean | null;
}

export interface PolicyDiff {
  versions: [number, number];
  common_ancestor: number | null;
  lineage: Pairs;
  judgements: { left: number; both: number; right: number };
  config: Pairs;
  metrics: Pairs;
  gate: Record<
    string,
    [{ value: number | null; verdict: string } | null, { value: number | null; verdict: string } | null]
  >;
  answers: AnsweredPrompt[];
  /** Versions whose answers were never written down. */
  answers_missing?: number[];
}

/** Without bounds where fewer than two raters stand behind it. */
export interface BoardFigure {
  value: number;
  low: number | null;
  high: number | null;
}

export interface Standing {
  version: number;
  status: "ranked" | "one_sided" | "unlinked" | "no_votes";
  strength: BoardFigure | null;
  elo: BoardFigure | null;
  against_stable: BoardFigure | null;
  votes: number;
  wins: number;
  ties: number;
  losses: number;
  raters: number;
}

export interface Leaderboard {
  anchor: number;
  stable: number | null;
  confidence: number;
  votes: number;
  ties: number;
  raters: number;
  standings: Standing[];
  left_wins: BoardFigure | null;
  longer_wins: BoardFigure | null;
  fragility: { leader: number; rival: number | null; dropped: number | null } | null;
}

export interface BoardQuery {
  raters: "all" | "evaluation" | "training";
  blind: boolean;
  anchor: number;
}

export const nameOf = (version: number): string => `policy-v${version}`;

export const policies = {
  list: (signal?: AbortSignal) => get<PolicyList>("/v1/policies", signal && { signal }),
  get: (version: number, signal?: AbortSignal) =>
    get<PolicyFacts>(`/v1/policies/${nameOf(version)}`, signal && { signal }),
  diff: (left: number, right: number, signal?: AbortSignal) =>
    get<PolicyDiff>(`/v1/policies/${nameOf(left)}/diff`, { query: { with: nameOf(right) }, ...(signal && { signal }) }),
  /** It serves at once; `expected` is the version believed to serve. */
  promote: (version: number, told: { reason: string; expected: number | null }) =>
    post<{ version: number }>(`/v1/policies/${nameOf(version)}/promote`, named(told)),
  rollBack: (told: { reason: string; expected: number | null; to?: number }) =>
    post<{ version: number }>("/v1/rollback", {
      ...named(told),
      ...(told.to === undefined ? {} : { to: nameOf(told.to) }),
    }),
  leaderboard: (query: BoardQuery, signal?: AbortSignal) =>
    get<Leaderboard>("/v1/leaderboard", { query: { ...query }, ...(signal && { signal }) }),
};

const named = ({ reason, expected }: { reason: string; expected: number | null }) => ({
  reason,
  ...(expected === null ? {} : { expected: nameOf(expected) }),
});
