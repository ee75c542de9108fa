/** The figures by which PPO is followed, in the order of the screen. */

import type { Curves } from "../../api/policies";

export interface PpoFigure {
  /** In a policy's manifest. */
  name: Exclude<keyof Curves, "iterations">;
  /** In the course of a round. */
  metric: string;
  title: string;
  unit: string;
  meaning?: string;
}

/** Where a policy gains, what it pays, how it would collapse, and how well PPO's own means fit. */
export const PPO_MAIN: PpoFigure[] = [
  { name: "score", metric: "objective/score", title: "Score", unit: "of the reward model, mean" },
  { name: "kl", metric: "objective/kl", title: "KL to the reference", unit: "nats per completion" },
  { name: "length", metric: "completion/length", title: "Length", unit: "tokens per completion" },
  { name: "entropy", metric: "objective/entropy", title: "Entropy", unit: "nats per token" },
  {
    name: "clip_fraction",
    metric: "ppo/clipfrac",
    title: "Clip fraction",
    unit: "share of tokens",
    meaning: "Those whose ratio the policy loss clipped.",
  },
  {
    name: "explained_variance",
    metric: "ppo/explained_variance",
    title: "Explained variance",
    unit: "of the returns by the values",
    meaning: "1 where the values foresee the returns.",
  },
];

/** Versions that an older Ratchet trained lack them. */
export const PPO_FURTHER: PpoFigure[] = [
  {
    name: "approx_kl",
    metric: "ppo/approxkl",
    title: "KL of the updates",
    unit: "nats per token",
    meaning: "By how much the updates moved the policy.",
  },
  {
    name: "value_clip_fraction",
    metric: "ppo/value_clipfrac",
    title: "Values clipped",
    unit: "share of places",
    meaning: "Those whose value the value loss clipped.",
  },
  {
    name: "finished",
    metric: "completion/finished",
    title: "Ended by itself",
    unit: "share of completions",
    meaning: "The others were cut at the limit.",
  },
  {
    name: "repetition",
    metric: "completion/repetition",
    title: "Repeated 4-grams",
    unit: "share of a completion’s",
    meaning: "Those that it has written before.",
  },
  {
    name: "importance_ratio",
    metric: "importance/ratio",
    title: "Policy / who sampled",
    unit: "ratio, mean over tokens",
    meaning: "1 but for chance, whoever sampled.",
  },
  {
    name: "effective_share",
    metric: "importance/ess",
    title: "Effective share of the sample",
    unit: "share of tokens",
    meaning: "By the importance weights; near 0 few tokens teach anything.",
  },
];
