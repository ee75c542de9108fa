import { isOpen, STAGES, type CoursePoint, type Progress, type Round, type RoundState, type Stage } from "../../api/rounds";
import type { Tone } from "../parts/Badge";
import { type Point } from "../parts/Plot";
import { clock, figure, percent, ranged } from "../parts/words";

export const STAGE_NAMES: Record<Stage, string> = {
  collect: "Collect",
  sft: "SFT",
  reward: "Reward model",
  ppo: "PPO",
  gate: "Gate",
  publish: "Publish",
};

export const TONES: Record<RoundState, Tone> = {
  queued: "busy",
  running: "busy",
  published: "good",
  refused: "bad",
  failed: "bad",
  cancelled: "plain",
};

export type StageState = "done" | "skipped" | "under way" | "ended here" | "to come" | "not reached";

/** Where each stage stands: what has metrics is done, and of a round that ended the rest was not reached. */
export function stageStates(round: Round): { stage: Stage; state: StageState }[] {
  const at = STAGES.indexOf(round.stage);
  const state = (stage: Stage, index: number): StageState => {
    if (index === at && round.state === "running") return round.metrics[stage] ? "done" : "under way";
    if (index === at && ["failed", "refused", "cancelled"].includes(round.state)) return "ended here";
    const metrics = round.metrics[stage];
    if (metrics) return "skipped" in metrics ? "skipped" : "done";
    return round.state === "queued" || round.state === "running" ? "to come" : "not reached";
  };
  return STAGES.map((stage, index) => ({ stage, state: state(stage, index) }));
}

/** "step 3 of 40, 0:42 to go"; empty before there are steps. How long measuring takes after the last nobody knows. */
export function stepsOf({ step, total, eta_s }: Progress): string {
  if (!total || step === undefined) return "";
  return `step ${figure(step)} of ${figure(total)}` + ((eta_s ?? 0) < 1 ? "" : `, ${clock(eta_s ?? 0)} to go`);
}

/** By so much the clocks of a browser and of the server may differ. */
const SLACK_MS = 60_000;

/** Of a round that runs, since when its worker has been silent, in seconds since 1970; null while it is heard of. */
export function silentSince({ state, lease_until }: Pick<Round, "state" | "lease_until">): number | null {
  return state === "running" && lease_until + SLACK_MS < Date.now() ? lease_until / 1000 : null;
}

export function took({ created, finished }: Round): string {
  return clock((finished ?? Date.now() / 1000) - created);
}

/** One figure of a stage over its steps; what was no number leaves a gap. */
export function curve(course: readonly CoursePoint[], stage: Stage, name: string): Point[] {
  return course.flatMap((point) => {
    const value = point.metrics[name];
    return point.stage === stage && typeof value === "number" ? [{ x: point.step, y: value }] : [];
  });
}

/** Of the stages that train, what each step of theirs tells. */
const TELLS: [Stage, string][] = [
  ["sft", "the loss of SFT"],
  ["reward", "the loss of the reward model"],
  ["ppo", "PPO’s score, KL, length and entropy"],
];

/** Which curves come yet, or that none of PPO's will: "" where nothing lacks. SFT's are left out until it begins. */
export function lacking(round: Round, drawn: readonly { stage: Stage }[]): string {
  const has = (stage: Stage) => drawn.some((each) => each.stage === stage);
  if (!isOpen(round)) return has("ppo") ? "" : "No step of PPO was taken: it has no curves.";
  const at = STAGES.indexOf(round.stage);
  const come = TELLS.filter(([stage]) => {
    const begins = stage === "sft" ? round.stage === "sft" : STAGES.indexOf(stage) >= at;
    return begins && !round.metrics[stage] && !has(stage);
  });
  return come.length === 0 ? "" : `To come: ${come.map(([, words]) => words).join("; ")}.`;
}

export const numberAt = (tree: unknown, ...path: string[]): number | null => {
  const found = at(tree, path);
  return typeof found === "number" ? found : null;
};

/** A share with its interval in a stage's metrics. */
export function shareAt(tree: unknown, ...path: string[]): { value: string; note: string } | null {
  const [mean, low, high] = ["mean", "low", "high"].map((name) => numberAt(tree, ...path, name));
  if (mean == null || low == null || high == null) return null;
  return { value: percent(mean), note: ranged({ low, high }, percent) };
}

function at(tree: unknown, path: string[]): unknown {
  return path.reduce<unknown>((found, name) => (isRecord(found) ? found[name] : undefined), tree);
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;
