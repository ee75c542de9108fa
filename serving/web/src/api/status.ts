/** How the installation is just now, and the two switches that stop it from changing by itself (GET /openapi.json). */

import { get, post } from "./client";
import type { Round } from "./rounds";

export interface EngineFacts {
  arm: string;
  policy_version: number | null;
  /** Why it does not serve. */
  reason: string | null;
  url_kind: "supervised" | "elsewhere" | "shared" | "none";
}

/** How one version came into the engine in another's place. */
export interface Swap {
  /** null at the start of the engine: nobody waited for it. */
  from_version: number | null;
  to_version: number;
  ok: boolean;
  reason: string;
  /** Seconds in which nobody was shown anything new. */
  held_s: number;
  time: number;
}

/** Of all processes of the gateway; `refused` and the median are since its start. */
export interface Traffic {
  in_flight: number;
  places: number;
  waiting: number;
  streams_open: number;
  refused: number;
  /** Seconds; null before the first answer. */
  first_token_s: number | null;
}

/** What the next round that starts by itself waits for: new judgements, or with any of them the schedule's time. */
export interface NextRound {
  judgements: number;
  needed: number;
  scheduled: number | null;
}

/** What could not be known within a second is null; `reasons` says why, by the name of the part. */
export interface Status {
  engines: EngineFacts[];
  last_swap: Swap | null;
  traffic: Traffic;
  ledger: {
    writable: boolean | null;
    reason: string | null;
    completions: number | null;
    judgements: number | null;
    memory_bytes: number | null;
  };
  /** `alive` is 0 or 1: several share one sign of life. `oldest_wait_s` is of an open round that nobody has taken. */
  workers: { alive: number | null; queued: number | null; oldest_wait_s: number | null; reason: string | null };
  round: Round | null;
  next_round: NextRound | null;
  learning_frozen: boolean | null;
  releases_frozen: boolean | null;
  release: number | null;
  self_test: { votes: number; alarm: boolean; says: string } | null;
  reasons: Partial<Record<"last_swap" | "round" | "next_round" | "release" | "learning_frozen" | "releases_frozen" | "self_test", string>>;
  version: string | null;
}

export const status = {
  get: (signal?: AbortSignal) => get<Status>("/v1/status", signal && { signal }),
  freezeLearning: (frozen: boolean, reason: string) => post<unknown>("/v1/rounds/freeze", told(frozen, reason)),
  freezeReleases: (frozen: boolean, reason: string) => post<unknown>("/v1/releases/freeze", told(frozen, reason)),
};

const told = (frozen: boolean, reason: string) => ({ frozen, ...(reason && { reason }) });
