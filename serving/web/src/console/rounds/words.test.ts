import { expect, test } from "vitest";
import type { CoursePoint, Round, Stage } from "../../api/rounds";
import { bytes, clock, measured, onAxis, ranged, withInterval } from "../parts/words";
import { ROUND } from "./round_double";
import { curve, lacking, numberAt, shareAt, silentSince, stageStates, stepsOf } from "./words";

const TRAINED: Round = {
  ...ROUND,
  metrics: { collect: { rankings: 5 }, sft: { skipped: "3 new" }, reward: { loss: 1 } },
};
const states = (changes: Partial<Round>) => stageStates({ ...TRAINED, ...changes }).map(({ state }) => state);

test("a round that runs is done with what it measured, and has the rest to come", () =>
  expect(states({})).toEqual(["done", "skipped", "done", "under way", "to come", "to come"]));

test("a round that runs tells since when no worker is at it, but for what clocks may differ by", () => {
  const now = Date.now();
  expect(silentSince({ state: "running", lease_until: now - 30_000 })).toBeNull();
  expect(silentSince({ state: "running", lease_until: now - 90_000 })).toBe((now - 90_000) / 1000);
  expect(silentSince({ state: "queued", lease_until: 0 })).toBeNull();
  expect(silentSince({ state: "failed", lease_until: now - 90_000 })).toBeNull();
});

test("a queued round has begun nothing", () =>
  expect(states({ state: "queued", stage: "collect", metrics: {} })).toEqual(Array(6).fill("to come")));

test("a refused round ended at a stage, although that measured something", () =>
  expect(states({ state: "refused", stage: "gate", metrics: { ...TRAINED.metrics, ppo: {}, gate: {} } })).toEqual([
    "done",
    "skipped",
    "done",
    "done",
    "ended here",
    "not reached",
  ]));

test("a published round did everything", () =>
  expect(states({ state: "published", stage: "publish", metrics: { ...TRAINED.metrics, ppo: {}, gate: {}, publish: {} } })).toEqual([
    "done",
    "skipped",
    "done",
    "done",
    "done",
    "done",
  ]));

test.each([
  [{}, ""],
  [{ step: 0, total: 0 }, ""],
  [{ step: 0, total: 40, eta_s: null }, "step 0 of 40"],
  [{ step: 3, total: 1200, eta_s: 62.4 }, "step 3 of 1,200, 1:02 to go"],
  [{ step: 5, total: 5, eta_s: 0 }, "step 5 of 5"],
])("progress %j is told as %s", (progress, words) => expect(stepsOf(progress)).toBe(words));

test("a curve is of one stage, without what was no number", () => {
  const point = (stage: string, step: number, value: unknown): CoursePoint => ({
    stage,
    step,
    total: 9,
    time: 1,
    metrics: { "objective/kl": value },
  });
  const course = [point("sft", 1, 9), point("ppo", 1, 0.5), point("ppo", 2, null), point("ppo", 3, 0.75)];
  expect(curve(course, "ppo", "objective/kl")).toEqual([
    { x: 1, y: 0.5 },
    { x: 3, y: 0.75 },
  ]);
});

const PPOS = "PPO’s score, KL, length and entropy";
const OPEN: [Partial<Round>, Stage[], string][] = [
  [{ state: "queued", stage: "collect", metrics: {} }, [], `To come: the loss of the reward model; ${PPOS}.`],
  [{ stage: "sft", metrics: {} }, [], `To come: the loss of SFT; the loss of the reward model; ${PPOS}.`],
  [{ stage: "sft", metrics: {} }, ["sft"], `To come: the loss of the reward model; ${PPOS}.`],
  [{ stage: "reward", metrics: {} }, [], `To come: the loss of the reward model; ${PPOS}.`],
  [{ stage: "reward", metrics: {} }, ["reward"], `To come: ${PPOS}.`],
  [{ stage: "reward", metrics: { reward: {} } }, [], `To come: ${PPOS}.`], // its figures are there
  [{}, ["reward"], `To come: ${PPOS}.`],
  [{}, ["reward", "ppo"], ""],
  [{ stage: "gate" }, ["ppo"], ""],
];
test.each(OPEN)("of an open round %j with curves of %j it is said: %s", (changes, drawn, words) =>
  expect(lacking({ ...TRAINED, ...changes }, drawn.map((stage) => ({ stage })))).toBe(words),
);

test("of a round that ended nothing is to come", () => {
  const failed: Round = { ...TRAINED, state: "failed", stage: "reward" };
  expect(lacking(failed, [{ stage: "reward" }])).toBe("No step of PPO was taken: it has no curves.");
  expect(lacking({ ...failed, stage: "gate" }, [{ stage: "ppo" }])).toBe("");
});

test("figures are found in metrics, and missed quietly", () => {
  const metrics = { held_out: { accuracy: { mean: 0.89474, low: 0.8113, high: 0.9672 }, ece: { mean: 1 } } };
  expect(shareAt(metrics, "held_out", "accuracy")).toEqual({ value: "89.5%", note: "81.1% to 96.7%" });
  expect(shareAt(metrics, "held_out", "ece")).toBeNull();
  expect(numberAt(undefined, "held_out")).toBeNull();
});

test.each([
  [0, "0:00"],
  [59.6, "1:00"],
  [725, "12:05"],
  [3723, "1:02:03"],
])("%d seconds are %s", (seconds, shown) => expect(clock(seconds)).toBe(shown));

test.each([
  [0, "0 B"],
  [1023, "1020 B"],
  [1536, "1.5 KiB"],
  [3 * 2 ** 30, "3 GiB"],
])("%d bytes are %s", (amount, shown) => expect(bytes(amount)).toBe(shown));

test("an interval is told from low to high", () => expect(ranged({ low: -0.5, high: 2 })).toBe("-0.5 to 2"));

test.each([
  ["reward model accuracy", 0.62, "62%"],
  ["reward.held_out.ece.low", 0.0625, "6.3%"],
  ["reward.held_out.agreement_pairs", 40, "40"],
  ["KL to the reference", 0.62, "0.62"],
])("of %s %d is told as %s", (name, value, words) => expect(measured(name, value)).toBe(words));

test("a plot tells shares in percent, as the text beside it does", () => {
  expect(withInterval({ x: 1, y: 0.815, low: 0.6209, high: 0.9222 }, { name: "", kind: "share" })).toBe("81.5% (62.1% to 92.2%)");
  expect([onAxis({ name: "" }, 0.815), onAxis({ name: "", kind: "share" }, 0.95)]).toEqual(["0.815", "95%"]);
});
