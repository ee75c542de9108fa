import { expect, test } from "vitest";
import { percent } from "../parts/words";
import { CANARY } from "./release_double";
import { BadStep, stepsOf } from "./steps";
import { atAllTimes, consequence, guardrailFigure, guardrailFound, guardrailRange, points, shareOfEvidence, waitsFor } from "./words";

test("shares and points read as percent, with their intervals", () => {
  expect(percent(0.5)).toBe("50%");
  expect(percent(0.1234)).toBe("12.3%");
  expect(points({ value: 0.02, low: -0.05, high: 0.09 })).toBe("+2.0 points (−5.0 to +9.0)");
});

test("evidence never shows more than all or less than none of what is needed", () => {
  expect(shareOfEvidence({ for: "candidate", log_e: 0.9, threshold: 3.6 })).toBeCloseTo(0.25, 10);
  expect(shareOfEvidence({ for: "stable", log_e: -2, threshold: 3.6 })).toBe(0);
  expect(shareOfEvidence({ for: "stable", log_e: 9, threshold: 3.6 })).toBe(1);
});

test("a guardrail's figure is a ratio, but the score's is a distance", () => {
  const [errors] = CANARY.guardrails;
  expect(guardrailFigure(errors!, 1.5)).toBe("1.50 × stable");
  expect(guardrailFigure({ ...errors!, name: "score" }, 0.5)).toBe("0.50 lower");
  expect(guardrailFigure({ ...errors!, name: "score" }, -0.3)).toBe("0.30 higher");
});

test("a guardrail's interval says once what both its ends are measured in", () => {
  const [errors] = CANARY.guardrails;
  const interval = { value: 0.9, low: -0.3, high: 0.5 };
  expect(guardrailRange({ ...errors!, interval: { value: 1, low: 0.5, high: 4 } })).toBe("0.50 to 4.00 × stable");
  expect(guardrailRange({ ...errors!, name: "score", interval })).toBe("0.30 higher to 0.50 lower");
  expect(guardrailRange({ ...errors!, interval: null })).toBeNull();
});

test("a stable that never failed gives no ratio, and is not said to be unmeasured", () => {
  const [errors] = CANARY.guardrails;
  expect(guardrailFound(errors!)).toBe("0.90 × stable");
  expect(guardrailFound({ ...errors!, value: null })).toBe("stable never failed");
  expect(guardrailFound({ ...errors!, value: null, units: { candidate: 0, stable: 0 } })).toBe("–");
  expect(guardrailFound({ ...errors!, name: "length", value: null })).toBe("–");
});

test("an interval is named by how sure it is", () => {
  expect(atAllTimes(0.01)).toBe("99% at all times together");
  expect(atAllTimes(0.005)).toBe("99.5% at all times together");
});

test("promoting a step says which it passes and what comes next", () => {
  const passed = consequence(CANARY, "promote");
  expect(passed.action).toBe("Pass the step");
  expect(passed.says).toBe(
    "“wait for the votes” counts as taken, whatever it still waits for. Next comes “25% of conversations”.",
  );
  const last = { ...CANARY, step: 3, steps: CANARY.steps.map((each) => ({ ...each, state: "taken" as const })) };
  expect(consequence(last, "promote").says).toContain("waits for an operator");
  expect(consequence({ ...last, mode: "automatic" }, "promote").says).toContain("policy-v7 serves everybody");
});

test("promoting in full, or what is proposed, says who serves from then on", () => {
  expect(consequence(CANARY, "promote", true).says).toBe(
    "3 steps are left out. policy-v7 becomes the stable policy in place of policy-v5, and this release ends.",
  );
  const proposed = {
    ...CANARY,
    proposed: true,
    steps: CANARY.steps.map((each) => ({ ...each, state: "taken" as const })),
  };
  expect(consequence(proposed, "promote").says).toMatch(/^policy-v7 becomes the stable policy/);
  expect(consequence({ ...CANARY, state: "pending" }, "promote", true).says).toContain("proven before it serves");
});

test("pause, resume, abort and roll back say what becomes of the candidate", () => {
  expect(consequence(CANARY, "pause").says).toContain("policy-v7 keeps 10% of the conversations");
  expect(consequence(CANARY, "resume").says).toContain("goes on with “wait for the votes”");
  expect(consequence(CANARY, "abort").says).toContain("may be released again");
  expect(consequence(CANARY, "rollback").says).toContain("counts as worse");
});

test("a pending release says what it waits for", () => {
  const waits = "It waits for an engine to hold policy-v7; no votes can come before.";
  const ready = { version: 7, state: "loading", cause: null };
  expect(waitsFor({ candidate: 7, engine: null })).toBe(`${waits} There is none yet.`);
  expect(waitsFor({ candidate: 7, engine: { ...ready, state: "none", cause: "no GPU is left" } })).toBe(
    `${waits} There is none yet: no GPU is left.`,
  );
  expect(waitsFor({ candidate: 7, engine: ready })).toBe(`${waits} That engine is loading.`);
  expect(waitsFor({ candidate: 7, engine: { ...ready, state: "failed", cause: "out of memory" } })).toBe(
    `${waits} That engine is failed: out of memory.`,
  );
});

test("steps are read as the command line reads them", () => {
  expect(stepsOf("5%, 30m,25%,Pause, analysis")).toEqual([
    { set_weight: 5 },
    { pause: "30m" },
    { set_weight: 25 },
    { pause: null },
    { analysis: true },
  ]);
  expect(() => stepsOf("5%,soon")).toThrow(BadStep);
  expect(() => stepsOf("5%,")).toThrow("A step is empty.");
});
