import type { Bounds, Fit, Policy } from "../../api/policies";
import type { Point } from "../parts/Plot";

export interface Fitted {
  version: number;
  created: number | null;
  fit: Fit;
}

const MEASURED = ["accuracy", "ece", "log_loss"] as const;

/** The versions that have a reward model of their own, oldest first; one that an old release measured may tell less. */
export function fitted(all: readonly Policy[]): Fitted[] {
  return all
    .flatMap(({ version, created, metrics }) => {
      const fit = (metrics?.["reward"] as { held_out?: Fit } | undefined)?.held_out;
      return fit && MEASURED.every((name) => fit[name]) ? [{ version, created: created ?? null, fit }] : [];
    })
    .sort((one, other) => one.version - other.version);
}

export const over = (versions: readonly Fitted[], name: (typeof MEASURED)[number]): Point[] =>
  versions.map(({ version, fit }) => {
    const { mean, low, high }: Bounds = fit[name];
    return { x: version, y: mean, low, high };
  });
