/** How the installation is just now, and the two switches that stop it from changing by itself (GET /openapi.json). */

import { get, post } from "./client";
import type { Round } from "./rounds";

export interface EngineFacts {
  arm: string;
  policy_version: number | null;
  /** Why it does not serve. */
  reason: string | null;
  [field: string]: unknown;
}

/** What could not be known within a second is null. */
export interface Status {
  engines: EngineFacts[];
  last_swap: Record<string, unknown> | null;
  ledger: {
    writable: boolean | null;
    reason: string | null;
    completions: number | null;
    judgements: number | null;
    memory_bytes: number | null;
  };
  workers: { alive: number | null; queued: number | null; oldest_wait_s: number | null; reason?: string | null };
  round: Round | null;
  learning_frozen: boolean | null;
  releases_frozen: boolean | null;
  release: number | null;
  self_test: { alarm?: boolean; says?: string; [field: string]: unknown } | null;
  version: string;
}

export const status = {
  get: (signal?: AbortSignal) => get<Status>("/v1/status", signal && { signal }),
  freezeLearning: (frozen: boolean, reason: string) => post<unknown>("/v1/rounds/freeze", told(frozen, reason)),
  freezeReleases: (frozen: boolean, reason: string) => post<unknown>("/v1/releases/freeze", told(frozen, reason)),
};

const told = (frozen: boolean, reason: string) => ({ frozen, ...(reason && { reason }) });
