/** Training rounds: collect → SFT → reward model → PPO → gate → publish (GET /openapi.json). */

import { get, post } from "./client";

export const STAGES = ["collect", "sft", "reward", "ppo", "gate", "publish"] as const;
export type Stage = (typeof STAGES)[number];

export type RoundState = "queued" | "running" | "published" | "refused" | "failed" | "cancelled";

export interface Progress {
  stage?: string;
  step?: number;
  total?: number;
  rate_per_s?: number | null;
  /** Seconds that the stage will take yet. */
  eta_s?: number | null;
  metrics?: Record<string, unknown>;
}

export interface Round {
  id: number;
  state: RoundState;
  stage: Stage;
  attempts: number;
  trigger: string;
  actor: string;
  created: number;
  finished: number | null;
  policy_version: number | null;
  restarts: number;
  /** Until when its worker has said that it is at it, in milliseconds since 1970; 0 before there is one. */
  lease_until: number;
  /** What it came to, or why it is tried again. */
  reason: string | null;
  progress: Progress;
  /** By stage, of those that ended. */
  metrics: Record<string, Record<string, unknown>>;
}

export interface RoundList {
  data: Round[];
  /** There are older ones. */
  has_more: boolean;
  /** While true no round starts by itself. */
  frozen: boolean;
}

export interface CoursePoint {
  stage: string;
  step: number;
  total: number;
  time: number;
  metrics: Record<string, unknown>;
}

export const isOpen = ({ state }: { state: RoundState }): boolean => state === "queued" || state === "running";

export const rounds = {
  /** The newest, or those before one. */
  list: (signal?: AbortSignal, before?: number, limit = 50) =>
    get<RoundList>("/v1/rounds", { query: { limit, before }, ...(signal && { signal }) }),
  get: (id: number, signal?: AbortSignal) => get<Round>(`/v1/rounds/${id}`, signal && { signal }),
  /** The figures of each step as they came, oldest first; of a long stage not all. */
  course: (id: number, signal?: AbortSignal) =>
    get<{ data: CoursePoint[] }>(`/v1/rounds/${id}/course`, signal && { signal }),
  /** The open one if there is one. */
  start: () => post<Round>("/v1/rounds", {}),
  /** Refused with 409 once it is over, or has published. */
  cancel: (id: number, reason: string) => post<Round>(`/v1/rounds/${id}/cancel`, { reason }),
};
