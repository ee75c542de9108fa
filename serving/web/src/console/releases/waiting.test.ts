import { expect, test } from "vitest";
import type { Release } from "../../api/releases";
import { CANARY } from "./release_double";
import { awaited, bounds, lasting, neededAs } from "./waiting";
import { consequence } from "./words";

const PROPOSED: Release = { ...CANARY, proposed: true, step: 4, outcome: "promote", still_needed: null, forecast: "decided" };
const LAPSED: Release = { ...PROPOSED, mode: "automatic", by_votes: true, outcome: "undecided", forecast: "no telling yet how many more votes" };
const DEADLINE = { ...CANARY.plan, deadline: 7200 };

test.each([
  [CANARY, "It waits for the votes of all raters: about 120 more votes to a decision."],
  [{ ...CANARY, whose: "evaluation", forecast: null }, "It waits for the votes of raters who never train: none is counted yet."],
  [{ ...CANARY, step: 0 }, ""], // a weight is set at once
  [{ ...CANARY, paused: true }, ""],
  [PROPOSED, "All steps are taken: to promote it lets it serve, to abort it does not."],
  [{ ...PROPOSED, mode: "automatic" }, "All steps are taken: it is promoted by itself, but not while releases are frozen, nor while the self-test alarms."],
  [{ ...LAPSED, outcome: "promote" }, "All steps are taken: it is promoted by itself, but not while releases are frozen, nor while the self-test alarms."],
  [LAPSED, "All steps are taken, but the votes that took one no longer say that it is better: it waits until they do again: no telling yet how many more votes. To promote it lets it serve."],
] as [Release, string][])("%#: whose turn it is", (release, words) => expect(awaited(release)).toBe(words));

test("where there is a deadline a lapsed proposal waits no longer", () =>
  expect(awaited({ ...LAPSED, plan: DEADLINE })).toContain("it waits until they do again or its deadline"));

const PAUSE: Release = { ...CANARY, step: 1, plan: { ...DEADLINE, steps: [{ set_weight: 10 }, { pause: 1800 }] } };
test.each([
  [PAUSE, ["1:10:10 of 30 minutes in this step", "1:40:10 of 2 hours until it ends undecided"]],
  [{ ...CANARY, passed: { in_step: 1, in_all: 2, unheld: 125 } }, ["2:05 of 15 minutes until it is aborted for want of an engine"]],
  [{ ...PROPOSED, plan: DEADLINE }, []], // an operator may take their time
  [{ ...LAPSED, plan: DEADLINE }, ["1:40:10 of 2 hours until it ends undecided"]],
  [{ ...PAUSE, passed: null }, []],
] as [Release, string[]][])("%#: how much of its time has passed", (release, told) => expect(bounds(release)).toEqual(told));

test("votes still needed are bounded where votes may end it", () => {
  expect(neededAs(CANARY)).toBe("as votes go so far; inconclusive at 4,000 decisive ones");
  expect(neededAs({ ...CANARY, still_needed: null, forecast: "no telling yet how many more votes" })).toMatch(/^no telling yet how/);
  expect(neededAs({ ...PAUSE, still_needed: 9 })).toBe("as votes go so far");
});

test.each([
  [1, "1 second"],
  [90, "90 seconds"],
  [900, "15 minutes"],
  [3600, "1 hour"],
  [86400, "1 day"],
])("%d seconds last %s", (seconds, words) => expect(lasting(seconds)).toBe(words));

test("to pass the last step of one whose votes lapsed lets it wait for them", () => {
  const last = { ...LAPSED, proposed: false, step: 3 };
  expect(consequence(last, "promote").says).toContain("waits for the votes to say again that it is better");
});
