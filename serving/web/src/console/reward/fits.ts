import type { Bounds, Fit, Policy } from "../../api/policies";
import type { Point } from "../parts/Plot";

export interface Fitted {
  version: number;
  created: number | null;
  fit: Fit;
}

/** The versions that have a reward model of their own, oldest first. */
export function fitted(all: readonly Policy[]): Fitted[] {
  return all
    .flatMap(({ version, created, metrics }) => {
      const fit = (metrics?.["reward"] as { held_out?: Fit } | undefined)?.held_out;
      return fit ? [{ version, created: created ?? null, fit }] : [];
    })
    .sort((one, other) => one.version - other.version);
}

export const over = (versions: readonly Fitted[], name: "accuracy" | "ece" | "log_loss"): Point[] =>
  versions.map(({ version, fit }) => {
    const { mean, low, high }: Bounds = fit[name];
    return { x: version, y: mean, low, high };
  });
