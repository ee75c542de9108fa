import { act, fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Session } from "../../api/client";
import type { Release, UsualRelease } from "../../api/releases";
import { failure, gateway, json, Later, type Asked, type Route } from "../../rating/gateway_double";
import { Releases } from "../views/Releases";
import { CANARY, USUAL } from "./release_double";

const ROOT: Session = {
  object: "session",
  role: "admin",
  name: "root",
  rater: "rater_1",
  single_user: false,
  expires: null,
};
const LINE = { time: 1767225600, actor: "root", reason: "fewer words", is: "pending, step 1 of 4", state: "pending" };
const POINT = {
  vote: 1,
  time: 1767225600,
  log_e: 0.1,
  log_e_better: 0.3,
  log_e_worse: -0.5,
  wins: 1,
  losses: 0,
  ties: 0,
};
const EVIDENCE = { threshold: 3.69, data: [{ ...POINT, win_rate: { value: 1, low: 0.1, high: 1 } }] };
const POLICIES = {
  data: [
    { id: "policy-v5", version: 5, state: "stable" },
    { id: "policy-v6", version: 6, state: "retired" },
    { id: "policy-v7", version: 7, state: "candidate" },
    { id: "policy-v8", version: 8, state: "rejected" },
  ],
  stable: 5,
};

const IN_CONSOLE = "asked for in the console";

beforeEach(() => {
  HTMLDialogElement.prototype.showModal ??= vi.fn(); // jsdom has no modal dialogs
  HTMLDialogElement.prototype.close ??= vi.fn();
});
afterEach(() => vi.unstubAllGlobals());

function one(release: Release, routes: Record<string, Route> = {}): Asked[] {
  const asked = gateway({
    "GET /v1/releases/3": () => json({ ...release, history: [{ ...LINE, revision: 0 }] }),
    "GET /v1/releases/3/evidence": () => json(EVIDENCE),
    ...routes,
  });
  render(<Releases session={ROOT} id="3" />);
  return asked;
}

function list(open: Release | null, routes: Record<string, Route> = {}, usual: UsualRelease = USUAL): Asked[] {
  const listed = { data: open === null ? [] : [open], open: open?.id ?? null, frozen: true, usual };
  const asked = gateway({
    "GET /v1/releases": () => json(listed),
    "GET /v1/policies": () => json(POLICIES),
    ...routes,
  });
  render(<Releases session={ROOT} id={null} />);
  return asked;
}

const posted = (asked: Asked[]) =>
  asked.filter(({ method }) => method === "POST").map(({ path, body }) => [path, body]);

async function confirm(name: string, reason = ""): Promise<void> {
  fireEvent.click(await screen.findByText(name, { selector: ".c-row button" }));
  if (reason) fireEvent.change(screen.getByLabelText(/^Reason/), { target: { value: reason } });
  fireEvent.click(screen.getByText(name, { selector: "footer button" }));
}

test("older releases than the newest page are shown when they are asked for", async () => {
  const page = (has_more: boolean, ...ids: number[]) =>
    json({ data: ids.map((id) => ({ ...CANARY, id, open: false })), open: null, frozen: false, has_more, usual: USUAL });
  list(null, {
    "GET /v1/releases": () => page(true, 9, 8),
    "GET /v1/releases?limit=50&before=8": () => page(false, 7),
  });
  fireEvent.click(await screen.findByText("Show more"));
  await screen.findByRole("link", { name: "7" });
  expect(screen.getAllByRole("rowheader").map(({ textContent }) => textContent)).toEqual(["9", "8", "7"]);
  expect(screen.queryByText("Show more")).toBeNull();
});

const usually = async () => within(await screen.findByRole("region", { name: "What becomes of a new version" }));

test.each([
  ["manual", "it proposes, and an operator promotes"],
  ["assisted", "it proposes, and an operator promotes"],
  ["automatic", "it promotes by itself"],
] as const)("the list says what becomes of a version that passes its gate, and how a release goes: %s", async (mode, told) => {
  list(null, {}, { ...USUAL, mode, says: `It is as ${mode} has it.` });
  const block = await usually();
  expect(block.getByText(`It is as ${mode} has it.`)).toBeTruthy();
  expect(block.getByText(/^A release that begins now/).textContent).toMatch(
    new RegExp(`: 10% of conversations, wait for the votes; then ${told}\\.$`),
  );
});

test("a plan that cannot be read is told with why, and promises no steps", async () => {
  list(CANARY, {}, { ...USUAL, plan: null, steps: [], broken: "release.json: alpha: too large" });
  const block = await usually();
  expect(block.getByText("No release can begin by the installation’s plan: release.json: alpha: too large")).toBeTruthy();
  expect(block.queryByText(/A release that begins now/)).toBeNull();
});

test("a release shows its steps, votes, evidence, guardrails and history", async () => {
  one(CANARY);
  const steps = await screen.findAllByRole("listitem");
  expect(steps.map(({ textContent }) => textContent)).toEqual([
    "✓10% of conversationstaken",
    "▸wait for the votesunder way",
    "·25% of conversationsto come",
    "·wait for the votesto come",
  ]);
  expect(screen.getByText("31 won, 19 lost, 4 tied, of all raters; 2 beyond what one rater may say")).toBeTruthy();
  expect(screen.getByText("Raters who voted").parentElement!.textContent).toBe(
    "Raters who voted1140 who may vote were known when it began",
  );
  expect(screen.getByText("about 120")).toBeTruthy();
  expect(screen.getAllByText("0.40 of 3.70 for policy-v7").length).toBe(1);
  const guardrails = within(screen.getByRole("region", { name: "Guardrails" }));
  expect(guardrails.getByText("Failed answers").closest("tr")!.textContent).toContain("ok0.90 × stable1.50 × stable");
  expect(guardrails.getByText("not decided yet")).toBeTruthy();
  expect(guardrails.getByText("0.50 to 4.00 × stable")).toBeTruthy();
  expect(guardrails.getByRole("columnheader", { name: "Interval, 99% at all times together" })).toBeTruthy();
  expect(screen.getByText("41% to 79%, 95% at all times together")).toBeTruthy();
  expect(within(screen.getByRole("region", { name: /History/ })).getByText("fewer words")).toBeTruthy();
  await screen.findByText(/Win rate of the candidate, with its confidence band in numbers/);
});

test("the rules that it was begun with can be read", async () => {
  one(CANARY);
  const plan = within((await screen.findByText("The plan that it began with")).closest("details")!);
  const row = (name: string) => plan.getByText(name).closest("tr")!.textContent;
  expect([row("max_votes"), row("limits.alpha"), row("deadline")]).toEqual(["max_votes4,000", "limits.alpha0.01", "deadline–"]);
  expect(plan.queryByText(/^steps/)).toBeNull();
});

test("an order says what it does, takes a reason, and is of what was seen", async () => {
  const asked = one(CANARY, { "POST /v1/releases/3/promote": () => json(CANARY) });
  fireEvent.click(await screen.findByText("Pass the step", { selector: ".c-row button" }));
  expect(screen.getByText(/“wait for the votes” counts as taken/)).toBeTruthy();
  fireEvent.click(screen.getByText("Cancel"));
  await confirm("Promote", "we need it now");
  await waitFor(() =>
    expect(posted(asked)).toEqual([["/v1/releases/3/promote", { reason: "we need it now", revision: 2, full: true }]]),
  );
});

test("to stop a release is meant at whichever step it is", async () => {
  const asked = one(CANARY, { "POST /v1/releases/3": () => json(CANARY) });
  await confirm("Pause");
  await waitFor(() => expect(posted(asked)).toEqual([["/v1/releases/3/pause", { reason: IN_CONSOLE }]]));
});

test("after a conflict the release is shown as it is now", async () => {
  let now: Release = CANARY;
  const refused = () => {
    now = { ...CANARY, state: "aborted", open: false, is: "aborted", why: "people complain", revision: 3 };
    return failure(409, "release 3 is over: aborted", "conflict");
  };
  gateway({
    "GET /v1/releases/3": () => json({ ...now, history: [] }),
    "GET /v1/releases/3/evidence": () => json(EVIDENCE),
    "POST /v1/releases/3/rollback": refused,
  });
  render(<Releases session={ROOT} id="3" />);
  await confirm("Roll back");
  await screen.findByText("people complain");
  expect(screen.queryByText("Pause")).toBeNull();
});

test.each([
  ["Pause", { ...CANARY, paused: true, revision: 3 }, /No step is taken until somebody resumes it/],
  ["Pass the step", { ...CANARY, step: 2, revision: 3 }, /“wait for the votes” counts as taken/],
] as [string, Release, RegExp][])("%s is never of a release that changed meanwhile", async (order, changed, says) => {
  let now: Release = CANARY;
  const asked = gateway({
    "GET /v1/releases/3": () => json({ ...now, history: [] }),
    "GET /v1/releases/3/evidence": () => json(EVIDENCE),
    "POST /v1/releases/3": () => json(CANARY),
  });
  render(<Releases session={ROOT} id="3" />);
  fireEvent.click(await screen.findByText(order, { selector: ".c-row button" }));
  now = changed;
  document.dispatchEvent(new Event("visibilitychange")); // it asks at once
  await screen.findByText(/^This changed while you read it; nothing was done/);
  expect(screen.getByText(says)).toBeTruthy();
  fireEvent.submit(screen.getByText(says).closest("form")!);
  expect(posted(asked)).toEqual([]);
});

test("what is over takes no orders, and tells which steps were never taken", async () => {
  const steps = CANARY.steps.map((step) => ({ ...step, state: step.state === "taken" ? step.state : "not taken" }) as const);
  one({ ...CANARY, state: "rolled_back", open: false, is: "rolled back", why: "It is worse.", steps });
  await screen.findByText("It is worse.");
  expect(screen.queryByText("Pause")).toBeNull();
  expect(screen.getAllByText("not taken")).toHaveLength(3);
  expect(screen.queryByText("Votes still needed")).toBeNull();
});

test("one that no engine holds yet can be promoted in full, paused and aborted alone", async () => {
  one({ ...CANARY, state: "pending", step: 0 });
  const orders = within(await screen.findByRole("group", { name: "Orders for release 3" }));
  expect(orders.getAllByRole("button").map(({ textContent }) => textContent)).toEqual(["Promote", "Pause", "Abort"]);
});

test("one whose plan waits says so, and takes no pause to resume", async () => {
  const is = "waiting, step 2 of 4, policy-v7 at 10%";
  one({ ...CANARY, paused: true, is });
  const orders = within(await screen.findByRole("group", { name: "Orders for release 3" }));
  const names = orders.getAllByRole("button").map(({ textContent }) => textContent);
  expect(names).toEqual(["Pass the step", "Promote", "Abort", "Roll back"]);
  expect(screen.getByText("waiting")).toBeTruthy();
  expect(screen.getByText("waiting here")).toBeTruthy();
  expect(screen.queryByText(/^paused/)).toBeNull();
});

test("one that somebody paused says so, and can be resumed", async () => {
  one({ ...CANARY, paused: true, is: "paused, step 2 of 4, policy-v7 at 10%" });
  const orders = within(await screen.findByRole("group", { name: "Orders for release 3" }));
  expect(orders.getByText("Resume")).toBeTruthy();
  expect(screen.getByText("paused here")).toBeTruthy();
});

test("a release is started in place of the open one, with the steps that were written", async () => {
  const newer = { id: "policy-v9", version: 9, state: "candidate" };
  const asked = list(CANARY, {
    "GET /v1/policies": () => json({ ...POLICIES, data: [...POLICIES.data, newer] }),
    "POST /v1/releases": () => json({ ...CANARY, id: 4 }, 201),
  });
  fireEvent.click(await screen.findByText("Start a release"));
  expect(screen.getByText(/takes the place of release 3/)).toBeTruthy();
  const candidate = screen.getByLabelText<HTMLSelectElement>("Candidate");
  expect([...candidate.options].map(({ value }) => value)).toEqual(["policy-v6", "policy-v9"]);
  expect(candidate.value).toBe("policy-v9");
  const ends = screen.getByLabelText<HTMLSelectElement>("In the end");
  const said = [...ends.options].map(({ text }) => text);
  expect(new Set(said).size).toBe(3);
  expect(said[0]).toBe("as the setting RATCHET_RELEASE_MODE says");
  fireEvent.change(ends, { target: { value: "assisted" } });
  fireEvent.change(screen.getByLabelText("Whose votes decide"), { target: { value: "all" } });
  fireEvent.change(screen.getByLabelText(/^Steps/), { target: { value: "5%, soon" } });
  const submit = screen.getByText("Start a release", { selector: "footer button" });
  fireEvent.click(submit);
  await screen.findByText("“soon” is no step."); // not by its role: jsdom opens no dialog
  fireEvent.change(screen.getByLabelText(/^Steps/), { target: { value: "5%, 30m, analysis" } });
  fireEvent.click(submit);
  const steps = [{ set_weight: 5 }, { pause: "30m" }, { analysis: true }];
  const wish = { candidate: "policy-v9", replaces: 3, reason: IN_CONSOLE, mode: "assisted", strategy: { steps }, plan: { raters: "all" } };
  await waitFor(() => expect(posted(asked)).toEqual([["/v1/releases", wish]]));
});

test("where votes decide, what is still needed of them stands at the top, and how many may come at most", async () => {
  one({ ...CANARY, plan: { ...CANARY.plan, deadline: 7200 } });
  await screen.findByText("It waits for the votes of all raters: about 120 more votes to a decision.");
  expect(screen.getByText("1:40:10 of 2 hours until it ends undecided.")).toBeTruthy();
  expect(screen.getByText("as votes go so far; inconclusive at 4,000 decisive ones")).toBeTruthy();
});

test("a proposal whose votes lapsed says that it waits for them, and what they still need", async () => {
  one({ ...CANARY, mode: "automatic", by_votes: true, proposed: true, step: 4 });
  await screen.findByText(/^All steps are taken, but the votes that took one no longer say that it is better/);
  expect(screen.getByText(/do again: about 120 more votes to a decision\. To promote it lets it serve/)).toBeTruthy();
});

test("who paused it and why stands at the top, and whether releases are frozen", async () => {
  const paused = { ...CANARY, paused: true, paused_at: 1767225600, paused_by: "ann", paused_why: "lunch" };
  one({ ...paused, is: "paused, step 2 of 4, policy-v7 at 10%" }, { "GET /v1/releases/freeze": () => json({ frozen: true }) });
  const held = await screen.findByText(/^Paused/);
  expect(held.textContent).toMatch(/^Paused .* ago by ann: lunch; to resume it goes on\.$/);
  await screen.findByText(/^Releases are frozen: it takes no step by itself/);
});

test("while the self-test alarms no vote decides, and whoever found the fault resets it", async () => {
  const test = { votes: 12, wins: 12, log_e: 5, threshold: 4.6, alarm: true, says: "the second won all" };
  const asked = one({ ...CANARY, self_test: test }, { "POST /v1/releases/self-test": () => json({ ...test, alarm: false }) });
  await screen.findByText("The self-test of the votes alarms: until it is reset no vote decides anything.");
  await confirm("Reset the self-test");
  await waitFor(() => expect(posted(asked)).toEqual([["/v1/releases/self-test", { reset: true }]]));
});

test("evidence is never that of another release", async () => {
  let now: Release = CANARY;
  const other = new Later(); // whoever is quicker, the answer or the question
  gateway({
    "GET /v1/releases/current": () => json({ ...now, history: [] }),
    "GET /v1/releases/3/evidence": () => json(EVIDENCE),
    "GET /v1/releases/4/evidence": () => other.answer,
  });
  render(<Releases session={ROOT} id="current" />);
  await screen.findByText(/Win rate of the candidate, with its confidence band in numbers/);
  now = { ...CANARY, id: 4 };
  document.dispatchEvent(new Event("visibilitychange")); // it asks at once
  await screen.findByRole("heading", { name: /^Release 4/ });
  expect(screen.queryByText(/Win rate of the candidate, with its confidence band/)).toBeNull();
  await act(async () => other.resolve(json(EVIDENCE)));
  await screen.findByText(/Win rate of the candidate, with its confidence band in numbers/);
});

test.each(["3/evidence", "../keys", "newest", "1234567890"])("%s names no release, and asks for nothing", (id) => {
  const asked = gateway({});
  render(<Releases session={ROOT} id={id} />);
  expect(screen.getByText(`There is no release ${id}.`)).toBeTruthy();
  expect(asked).toEqual([]);
});

test("where nothing is open that is said, and a start names that", async () => {
  const asked = list(null, { "POST /v1/releases": () => json(CANARY, 201) });
  await screen.findByText("No release is open.");
  expect(screen.getByText(/^Releases are frozen/)).toBeTruthy();
  fireEvent.click(await screen.findByText("Start a release"));
  fireEvent.click(screen.getByText("Start a release", { selector: "footer button" }));
  await waitFor(() => expect(posted(asked)).toEqual([["/v1/releases", { candidate: "policy-v7", replaces: null, reason: IN_CONSOLE }]]));
  await waitFor(() => expect(location.pathname).toBe("/console/releases/3"));
});

test("beside an open release of the only candidate nobody is told that there is none", async () => {
  list(CANARY, { "GET /v1/policies": () => json({ ...POLICIES, data: [POLICIES.data[0], POLICIES.data[2]] }) });
  await screen.findByText("No version other than policy-v7 can be released now.");
  expect(screen.queryByText("Start a release")).toBeNull();
});

test("a start that is refused shows at once what stands now", async () => {
  const asked = list(null, { "POST /v1/releases": () => failure(409, "release 4 is open", "conflict") });
  fireEvent.click(await screen.findByText("Start a release"));
  const before = asked.length;
  fireEvent.click(screen.getByText("Start a release", { selector: "footer button" }));
  await screen.findByText(/Somebody else was quicker/);
  await waitFor(() => {
    const since = asked.slice(before).map(({ method, path }) => `${method} ${path.split("?")[0]}`);
    expect(since).toEqual(["POST /v1/releases", "GET /v1/releases", "GET /v1/policies"]);
  });
});

test.each(["aborted", "replaced"] as const)("one that was %s was decided by no votes, and waits for none", async (state) => {
  one({ ...CANARY, state, open: false, is: state, why: "people complain" });
  await screen.findByText("What the votes said when it ended");
  expect(screen.queryByText(/120 more are needed/)).toBeNull();
  expect(screen.queryByText("not decided yet")).toBeNull();
  expect(screen.getByText("never decided")).toBeTruthy();
});

test.each(["promoted", "rolled_back"] as const)("one that a hand has %s was not decided by undecided votes", async (state) => {
  one({ ...CANARY, state, open: false, is: state, why: "by hand", passed: null });
  await screen.findByText("What the votes said when it ended");
  expect(screen.getByText("The candidate had won 31 of 50 decisive votes, which decided nothing.")).toBeTruthy();
  expect(screen.queryByText(/120 more/)).toBeNull();
});

test("evidence below nothing is none, and for nobody", async () => {
  one({ ...CANARY, evidence: { for: "stable", log_e: -0.36, threshold: 3.7 } });
  await screen.findByText("none of 3.70");
  expect(screen.queryByText(/-0\.36/)).toBeNull();
});

test("one that is proposed needs no more votes", async () => {
  one({ ...CANARY, proposed: true, outcome: "promote", still_needed: null, forecast: "decided" });
  await screen.findByText("So far");
  expect(screen.queryByText("Votes still needed")).toBeNull();
});

test("one that is pending says at its top what it waits for, and of what is not known nothing", async () => {
  one({ ...CANARY, state: "pending", step: 0, engine: { version: 7, state: "starting", cause: null } });
  await screen.findByText("It waits for an engine to hold policy-v7; no votes can come before. That engine is starting.");
  expect(screen.queryByText("So far")).toBeNull();
});

test("the history says once what a release became", async () => {
  const lines = ["moved: pending, step 1 of 4", "pending, step 1 of 4"].map((reason, revision) => ({ ...LINE, reason, revision }));
  gateway({
    "GET /v1/releases/3": () => json({ ...CANARY, history: lines }),
    "GET /v1/releases/3/evidence": () => json(EVIDENCE),
  });
  render(<Releases session={ROOT} id="3" />);
  const rows = within(await screen.findByRole("region", { name: /History/ })).getAllByRole("row").slice(1);
  expect(rows.map((row) => within(row).getAllByRole("cell").at(-1)!.textContent)).toEqual(["", "moved"]);
});
