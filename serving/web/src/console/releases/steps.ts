/** The steps of a release as operators write them, here and on the command line: `5%, 30m, 25%, pause, analysis`. */

import type { Step } from "../../api/releases";

export const STEPS_HELP =
  "5% is the candidate’s share of conversations, 30m a wait (s, m, h, d), pause waits for an operator, " +
  "analysis for the votes.";

export class BadStep extends Error {}

/** Throws BadStep naming the word that is none. */
export function stepsOf(text: string): Step[] {
  return text.split(",").map((word) => stepOf(word.trim().toLowerCase()));
}

function stepOf(word: string): Step {
  const weight = /^(\d+(?:\.\d+)?)%$/.exec(word)?.[1];
  if (weight !== undefined) return { set_weight: Number(weight) };
  if (word === "pause") return { pause: null };
  if (word === "analysis") return { analysis: true };
  if (/^\d+(?:\.\d+)?[smhd]$/.test(word)) return { pause: word };
  throw new BadStep(word === "" ? "A step is empty." : `“${word}” is no step.`);
}
