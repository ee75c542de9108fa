import { cleanup, fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Session } from "../../api/client";
import type { Curves, Policy, PolicyDiff, PolicyFacts, PolicyList } from "../../api/policies";
import { failure, gateway, json, type Asked, type Route } from "../../rating/gateway_double";
import { PPO_MAIN } from "../rounds/ppo";
import { Policies } from "../views/Policies";

const ROOT: Session = {
  object: "session",
  role: "admin",
  name: "root",
  rater: "rater_1",
  single_user: false,
  expires: null,
};
const CHECKS = [
  { name: "kl", value: 0.5, sign: "<=", threshold: 2, passed: true },
  { name: "score_gain", value: 0.1, sign: ">", threshold: 0.2, passed: false },
  { name: "weights that are not finite", value: 0, sign: "<=", threshold: 0, passed: true },
];
const MADE = { object: "policy", pinned: false, served: false, kind: "trained", created: 1767225600 } as const;
const BASE: Policy = { ...MADE, id: "policy-v0", version: 0, state: "retired", kind: "base", parent: null };
const FIRST: Policy = { ...MADE, id: "policy-v1", version: 1, state: "stable", parent: 0, served: true, pinned: true };
const SECOND: Policy = {
  ...MADE,
  id: "policy-v2",
  version: 2,
  state: "candidate",
  parent: 1,
  metrics: { gate: { "gate/kl": 0.5, "gate/score_gain": 0.1, checks: CHECKS } },
};
const BROKEN: Policy = { ...MADE, id: "policy-v3", version: 3, state: "broken", broken: "no manifest" };
const LIST: PolicyList = {
  data: [BASE, FIRST, SECOND, BROKEN],
  stable: 1,
  previous: 0,
  served: 1,
  candidate_served: null,
  last_swap: null,
};
const FACTS: PolicyFacts = {
  ...SECOND,
  config: { ppo: { kl_coef: 0.05 } },
  ancestors: [1, 0],
  descendants: [4, 5],
  gate: CHECKS,
  round: 9,
  reward_fit: { pairs: 80, accuracy: bounds(0.7), ece: bounds(0.04) } as PolicyFacts["reward_fit"],
  curves: null,
  judgements: { all: 123, rankings: 120, ratings: 0, demonstrations: 3, raters: 9, live: 0 },
};
const DIFF: PolicyDiff = {
  versions: [1, 2],
  common_ancestor: 0,
  lineage: { round: [3, 9] },
  judgements: { left: 2, both: 118, right: 40 },
  config: { "ppo.kl_coef": [0.1, 0.05] },
  metrics: {},
  gate: { kl: [null, { value: 0.5, verdict: "passed" }] },
  answers: [
    { prompt: "Why is the sky blue?", left: "It scatters.", right: "Light\nscatters.", left_cut: false, right_cut: true },
    { prompt: "2 + 2?", left: "4", right: "4" },
  ],
};

function bounds(mean: number) {
  return { mean, low: mean - 0.02, high: mean + 0.02 };
}

beforeEach(() => {
  HTMLDialogElement.prototype.showModal ??= vi.fn(); // jsdom has no modal dialogs
  HTMLDialogElement.prototype.close ??= vi.fn();
});
afterEach(() => vi.unstubAllGlobals());

function shown(id: string | null, routes: Record<string, Route> = {}): Asked[] {
  const asked = gateway({
    "GET /v1/policies": () => json(LIST),
    "GET /v1/policies/policy-v2": () => json(FACTS),
    "GET /v1/policies/policy-v1": () => json({ ...FACTS, ...FIRST, gate: [] }),
    "GET /v1/policies/policy-v1/diff": () => json(DIFF),
    ...routes,
  });
  render(<Policies session={ROOT} id={id} />);
  return asked;
}

const posted = (asked: Asked[]) => asked.flatMap(({ method, path, body }) => (method === "POST" ? [[path, body]] : []));
const row = async (name: string) => (await screen.findByText(name, { selector: "th a" })).closest("tr")!.textContent;

test("versions are listed newest first, with where they come from and what the gate found", async () => {
  shown(null);
  const rows = within(await screen.findByRole("region", { name: /^Policy versions/ })).getAllByRole("rowheader");
  expect(rows.map(({ textContent }) => textContent)).toEqual(["policy-v3", "policy-v2", "policy-v1", "policy-v0"]);
  expect(await row("policy-v2")).toMatch(/^policy-v2candidatepolicy-v11 of 3 failed0\.10\.5/);
  expect(await row("policy-v1")).toContain("stableservespinned");
  expect(await row("policy-v0")).toContain("not asked");
  expect(await row("policy-v3")).toContain("no manifest");
});

test("a version shows its lineage both ways, the gate's checks and what it learned from", async () => {
  shown("2");
  const from = await screen.findByText("Comes from");
  expect(from.nextElementSibling!.textContent).toBe("policy-v0 → policy-v1");
  expect(screen.getByText("Went on as").nextElementSibling!.textContent).toBe("policy-v4, policy-v5");
  expect(screen.getByText("round 9").getAttribute("href")).toBe("/console/rounds/9");
  const gate = within(screen.getByRole("region", { name: "Gate checks" }));
  expect(gate.getByText("score_gain").closest("tr")!.textContent).toContain("above 0.2");
  const told = (name: string) => gate.getByText(name).closest("tr")!.textContent;
  expect(told("weights that are not finite")).toBe("weights that are not finitepassednonenone");
  expect(told("kl")).toBe("klpassed0.5at most 2");
  expect(screen.getByText("Rankings and comparisons").nextElementSibling!.textContent).toBe("120");
  // Who only asked is among them.
  expect(screen.getByText("People whose words it learned from").nextElementSibling!.textContent).toBe("9");
  expect(screen.queryByText("Ratings")).toBeNull();
  expect(screen.getByText("68% to 72%, on 80 pairs it never saw")).toBeTruthy();
  expect(screen.getByText("ppo.kl_coef").closest("tr")!.textContent).toBe("ppo.kl_coef0.05");
});

const KEPT = { iterations: [1, 2], ...Object.fromEntries(PPO_MAIN.map(({ name }) => [name, [0.25, 0.5]])) } as Curves;
const drawn = () => screen.getAllByRole("figure").map((figure) => figure.querySelector("strong")!.textContent);

test("of its training six curves are seen at once, and what was kept later unfolds", async () => {
  shown("2", { "GET /v1/policies/policy-v2": () => json({ ...FACTS, curves: { ...KEPT, finished: [1, 0.75], approx_kl: null } }) });
  const fold = (await screen.findByText("One more figure of PPO")).closest("details")!;
  expect(drawn()).toEqual(PPO_MAIN.map(({ title }) => title));
  fold.open = true;
  fireEvent(fold, new Event("toggle"));
  expect(drawn().slice(6)).toEqual(["Ended by itself"]);
});

test("a version of before those were kept has six curves, and nothing to unfold", async () => {
  shown("2", { "GET /v1/policies/policy-v2": () => json({ ...FACTS, curves: KEPT }) });
  await screen.findByText("Score in numbers");
  expect(drawn()).toHaveLength(6);
  expect(screen.queryByText(/of PPO$/)).toBeNull();
});

test("to promote says whose place it takes, and names whoever is believed to serve", async () => {
  const asked = shown("policy-v2", { "POST /v1/policies/policy-v2/promote": () => failure(409, "it is policy-v0", "conflict") });
  fireEvent.click(await screen.findByText("Promote"));
  expect(screen.getByText(/becomes the stable policy in place of policy-v1 at once/)).toBeTruthy();
  fireEvent.change(screen.getByLabelText(/^Reason/), { target: { value: "looks good" } });
  fireEvent.click(screen.getByText("Promote", { selector: "footer button" }));
  await screen.findByText(/Somebody else was quicker.*it is policy-v0/);
  const body = { reason: "looks good", expected: "policy-v1" };
  expect(posted(asked)).toEqual([["/v1/policies/policy-v2/promote", body]]);
});

test("what a release lets in leads to it, and whoever serves it or goes back is told that the release ends", async () => {
  const data = LIST.data.map((policy) => (policy.version === 2 ? { ...policy, state: "canary" } : policy));
  const canary = { "GET /v1/policies": () => json({ ...LIST, data }) };
  shown("2", { ...canary, "GET /v1/policies/policy-v2": () => json({ ...FACTS, state: "canary" }) });
  expect((await screen.findByText("Its release")).getAttribute("href")).toBe("/console/releases/current");
  fireEvent.click(screen.getByText("Promote"));
  expect(screen.getByText("The open release of policy-v2 ends, with nothing decided.")).toBeTruthy();
  cleanup();
  shown("1", canary);
  fireEvent.click(await screen.findByText("Roll back"));
  expect(screen.getByText("The open release of policy-v2 ends, with nothing decided.")).toBeTruthy();
  expect(screen.queryByText("Its release")).toBeNull();
});

test("what serves can be rolled back, to a version that is named", async () => {
  const asked = shown("1", { "POST /v1/rollback": () => json({ version: 0 }) });
  fireEvent.click(await screen.findByText("Roll back"));
  expect(screen.getByText(/^policy-v1 stops serving; policy-v0 answers everybody\./)).toBeTruthy();
  fireEvent.click(screen.getByText("Roll back", { selector: "footer button" }));
  const body = { reason: "asked for in the console", expected: "policy-v1", to: "policy-v0" };
  await waitFor(() => expect(posted(asked)).toEqual([["/v1/rollback", body]]));
});

test("a rollback is never to another version than was read", async () => {
  let now = LIST;
  const asked = shown("1", { "GET /v1/policies": () => json(now), "POST /v1": () => json({ version: 2 }) });
  fireEvent.click(await screen.findByText("Roll back"));
  now = { ...LIST, previous: 2 };
  document.dispatchEvent(new Event("visibilitychange")); // it asks at once
  await screen.findByText(/^This changed while you read it; nothing was done/);
  fireEvent.submit(screen.getByLabelText(/^Reason/).closest("form")!);
  expect(posted(asked)).toEqual([]);
});

test("what was rolled back serves until the swap is done, and is not promoted meanwhile", async () => {
  let now: PolicyList = { ...LIST, stable: 0, previous: null };
  shown("1", {
    "GET /v1/policies": () => json(now),
    "GET /v1/policies/policy-v1": () => json({ ...FACTS, ...FIRST, state: "retired", gate: [] }),
  });
  await screen.findByText("serves until the swap is done");
  expect(screen.queryByText("Promote")).toBeNull();
  now = { ...now, served: 0 }; // and it is asked for soon, by itself
  await screen.findByText("Promote", {}, { timeout: 8_000 });
  expect(screen.queryByText(/^serves/)).toBeNull();
}, 20_000);

test("what nothing served before is not rolled back", async () => {
  shown("1", { "GET /v1/policies": () => json({ ...LIST, previous: null }) });
  await screen.findByText("Comes from");
  expect(screen.queryByText("Roll back")).toBeNull();
});

test("nothing that is broken is promoted", async () => {
  shown("3", { "GET /v1/policies/policy-v3": () => json({ ...FACTS, ...BROKEN }) });
  await screen.findByText("Comes from");
  expect(screen.queryByText("Promote")).toBeNull();
});

test("a promotion is never turned into a rollback by what another operator did meanwhile", async () => {
  let now = LIST;
  const asked = shown("policy-v2", { "GET /v1/policies": () => json(now), "POST /v1": () => json({ version: 2 }) });
  fireEvent.click(await screen.findByText("Promote"));
  now = { ...LIST, stable: 2 };
  document.dispatchEvent(new Event("visibilitychange")); // it asks at once
  await screen.findByText(/^This changed while you read it; nothing was done/);
  expect(screen.getByText("Let policy-v2 serve everybody?")).toBeTruthy();
  fireEvent.submit(screen.getByLabelText(/^Reason/).closest("form")!);
  expect(posted(asked)).toEqual([]);
});

test("two versions stand side by side with their answers to the same prompts", async () => {
  const asked = shown("1-2");
  const card = (await screen.findByText("Why is the sky blue?")).closest("article")!;
  expect([...card.querySelectorAll(".c-said")].map(({ textContent }) => textContent)).toEqual([
    "It scatters.",
    "Light\nscatters. … cut at the limit of length",
  ]);
  expect(screen.getByText("2 + 2?").closest("article")!.textContent).toBe("2 + 2?both4");
  expect(screen.getByText("ppo.kl_coef").closest("tr")!.textContent).toBe("ppo.kl_coef0.10.05");
  expect(screen.getByText("kl").closest("tr")!.textContent).toBe("kl–0.5, passed");
  expect(screen.getByText("Swap sides").getAttribute("href")).toBe("/console/policies/2-1");
  expect(asked.map(({ path }) => path)).toContain("/v1/policies/policy-v1/diff?with=policy-v2");
});

test("what only one of two has is folded, and hides nothing that differs", async () => {
  const settings = Array.from({ length: 7 }, (_, at) => [`ppo.setting_${at}`, [null, at]]);
  const config = { seed: [1, 2], ...Object.fromEntries(settings) };
  const metrics = { "ppo.target": [0.1, null], "ppo.curves.kl": [null, [0.5, 0.75]], "reward.accuracy": [0.5, 0.625] };
  shown("1-2", { "GET /v1/policies/policy-v1/diff": () => json({ ...DIFF, config, metrics }) });
  const rows = async (label: string) =>
    [...(await screen.findByRole("region", { name: label, hidden: true })).querySelectorAll("tbody tr")].map(
      ({ textContent }) => textContent,
    );
  expect(await rows("Configuration: what differs")).toEqual(["seed12"]);
  const fold = screen.getByText("7 settings only policy-v2 has").closest("details")!;
  expect(fold.open).toBe(false);
  expect((await rows("7 settings only policy-v2 has"))[3]).toBe("ppo.setting_3–3");
  // One of few stands among the others, and of a curve nothing is seen in a cell.
  expect(await rows("Figures: what differs")).toEqual(["ppo.target0.1–", "reward.accuracy50%62.5%"]);
  expect(screen.queryByText(/figures? only/)).toBeNull();
});

test("where no answers were written down it says of whom", async () => {
  shown("1-2", {
    "GET /v1/policies/policy-v1/diff": () => json({ ...DIFF, answers: [], answers_missing: [1] }),
  });
  await screen.findByText("No answers were written down when policy-v1 came to be.");
});

test("an address that names no version asks for nothing", async () => {
  const asked = shown("newest");
  await screen.findByText("There is no policy newest.");
  expect(asked).toEqual([]);
});
