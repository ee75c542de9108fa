import type { Round } from "../../api/rounds";

/** A round that trains, as tests change it. */
export const ROUND: Round = {
  id: 4,
  state: "running",
  stage: "ppo",
  attempts: 1,
  trigger: "count",
  actor: "beat",
  created: 0,
  finished: null,
  policy_version: null,
  restarts: 0,
  lease_until: 0,
  reason: null,
  progress: {},
  metrics: {},
};
