import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Role } from "../api/client";
import { failure, gateway, json, Streamed, type Route } from "../rating/gateway_double";

const LIST = { object: "list", data: [], has_more: false, frozen: false };
const FACTS = {
  object: "status",
  engines: [
    { arm: "stable", policy_version: 3, reason: null },
    { arm: "candidate", policy_version: null, reason: "the engine starts" },
  ],
  last_swap: { to_version: 3, ok: false, reason: "the proof failed", held_s: 0.5, time: 1767225600 },
  traffic: { in_flight: 3, places: 1024, waiting: 0, streams_open: 2, refused: 0, first_token_s: 0.2 },
  ledger: { writable: true, reason: null, completions: 1234, judgements: 56, memory_bytes: 1572864 },
  workers: { alive: null, queued: 2, oldest_wait_s: 75, reason: "the broker does not answer" },
  round: null,
  next_round: { judgements: 16, needed: 48, scheduled: null },
  learning_frozen: false,
  releases_frozen: true,
  release: null,
  self_test: { votes: 40, alarm: true, says: "stable beats itself" },
  reasons: { release: "the ledger did not answer" },
  version: "0.1",
};
const RUNNING = {
  object: "round", id: 4, state: "running", stage: "ppo", attempts: 1, trigger: "operator", actor: "root",
  created: 1767225600, finished: null, policy_version: null, restarts: 0, reason: null,
  progress: { stage: "ppo", step: 3, total: 40, eta_s: 62 },
  metrics: { collect: { rankings: 5 }, sft: { skipped: "3 new demonstrations, 16 are needed" }, reward: {} },
}; // prettier-ignore
const step = (at: number) => ({
  stage: "ppo", step: at, total: 40, time: at, metrics: { "objective/score": at / 8, "objective/kl": null },
}); // prettier-ignore

beforeEach(() => {
  vi.resetModules();
  vi.stubGlobal("matchMedia", () => ({ matches: false }));
  HTMLDialogElement.prototype.showModal ??= vi.fn(); // jsdom has no modal dialogs
  HTMLDialogElement.prototype.close ??= vi.fn();
});
afterEach(() => vi.unstubAllGlobals());

async function arrive(path: string, role: Role, routes: Record<string, Route> = {}) {
  history.replaceState(null, "", path);
  const asked = gateway({
    "GET /v1/session": () => json({ name: "ann", role, single_user: false }),
    "GET /v1/conversations": () => json(LIST),
    "GET /v1/status": () => json(FACTS),
    ...routes,
  });
  const fresh = await import("../app/App"); // a page arrives once
  render(<fresh.App />);
  return asked;
}

const figureOf = async (name: string) => (await screen.findByText(name)).parentElement!.textContent;

test("operators find the console in the sidebar, and the chat again", async () => {
  await arrive("/chat", "operator");
  fireEvent.click(await screen.findByText("Console"));
  await screen.findByRole("heading", { name: "Overview" });
  const views = screen.getByRole("navigation", { name: "Console" });
  expect(views.textContent).toContain("Rounds");
  expect(views.textContent).not.toContain("Keys"); // an admin's
  expect(location.pathname).toBe("/console/overview");
  await waitFor(() => expect(document.title).toBe("Overview · Ratchet"));
  fireEvent.click(screen.getByText("Back to the chat"));
  await screen.findByLabelText("Message");
});

test("a chat that goes on meanwhile leaves an operator in the console", async () => {
  const answer = new Streamed();
  const asked = await arrive("/chat", "operator", { "POST /v1/chat/completions": () => answer.response });
  fireEvent.change(await screen.findByLabelText("Message"), { target: { value: "tea?" } });
  fireEvent.click(screen.getByLabelText("Send"));
  await waitFor(() => expect(asked.some(({ method }) => method === "POST")).toBe(true));
  fireEvent.click(screen.getByText("Console"));
  await screen.findByRole("heading", { name: "Overview" });
  const listed = () => asked.filter(({ path }) => path.startsWith("/v1/conversations")).length;
  const before = listed();
  answer.text(0, "Green.", { conversation_id: "web-1", completion_ids: ["cmp_1:0"] });
  answer.finish(0, { conversation_id: "web-1", completion_ids: ["cmp_1:0"], stored: true });
  answer.end();
  await waitFor(() => expect(listed()).toBeGreaterThan(before));
  expect(location.pathname).toBe("/console/overview");
});

test("users find no console, and are told so where they type its address", async () => {
  const asked = await arrive("/console/rounds", "rater");
  await screen.findByText("This is for operators and admins; you are signed in as ann, rater.");
  expect(screen.getByRole("navigation", { name: "Conversations" })).toBeTruthy();
  expect(asked.some(({ path }) => path.startsWith("/v1/rounds"))).toBe(false);
  expect(screen.queryByText("Console")).toBeNull();
});

test("keys are for admins alone", async () => {
  await arrive("/console/keys", "operator");
  await screen.findByText("This is for admins; you are signed in as ann, operator.");
});

test("a view that is not there says so", async () => {
  await arrive("/console/nonsense", "admin");
  await screen.findByText("There is no such view.");
});

test("the overview says what serves, what does not, and what cannot be known", async () => {
  await arrive("/console/overview", "admin");
  expect(await figureOf("engine, stable")).toContain("policy-v3");
  expect(await figureOf("engine, candidate")).toBe("engine, candidatedoes not servethe engine starts");
  expect(await figureOf("workers")).toBe("workersunknownthe broker does not answer");
  expect(await figureOf("last swap")).toMatch(/^last swappolicy-v3 failed.* ago, the proof failed$/);
  expect(await figureOf("ledger")).toContain("1.5 MiB of memory");
  expect(await figureOf("answers kept")).toContain("1,234");
  expect(await figureOf("votes' self-test")).toBe("votes' self-testalarmstable beats itselfReset the self-test");
  await screen.findByText("No round is open.");
  await screen.findByText(/^Unknown: the ledger did not answer/);
});

const KEY = {
  object: "key", id: "key_1", name: "ann", role: "admin", created: 1767225600, expires: null, last_rotated: null,
  limits: { requests_per_minute: null, tokens_per_day: null, streams: null, feedback_per_day: null }, usage: null,
}; // prettier-ignore

test("a key that is told once goes along, and whoever rotated their own reads it before they are signed out", async () => {
  let out = false;
  const known = (body: unknown) => () => (out ? failure(401, "no session") : json(body));
  await arrive("/console/keys", "admin", {
    "GET /v1/conversations": known(LIST),
    "GET /v1/keys": known({ ...LIST, data: [KEY] }),
    "GET /v1/invites": known(LIST),
    "GET /v1/me": known({ id: "key_1" }),
    "POST /v1/keys/key_1/rotate": () => ((out = true), json({ ...KEY, key: "rk-new" })),
    "POST /v1/session": () => failure(503, "the ledger is away"),
  });
  await screen.findByText("yours");
  fireEvent.click(screen.getByRole("button", { name: "Rotate" }));
  fireEvent.submit(screen.getByText(/It is your own/).closest("form")!);
  await screen.findByText("rk-new");
  await waitFor(() => expect(screen.queryByText(/It is your own/)).toBeNull());
  fireEvent.click(screen.getByRole("link", { name: "Audit trail" }));
  await screen.findByRole("heading", { name: "Audit trail" });
  expect(screen.getByText("rk-new")).toBeTruthy();
  fireEvent.click(screen.getByText("I have it"));
  await screen.findByText(/^You were signed out/);
});

test("a key that is told once is still there for who was in the chat meanwhile", async () => {
  await arrive("/console/keys", "admin", {
    "GET /v1/keys": () => json({ ...LIST, data: [KEY] }),
    "GET /v1/invites": () => json(LIST),
    "GET /v1/me": () => json({ id: "key_9" }),
    "POST /v1/keys": () => json({ ...KEY, id: "key_2", name: "bot", key: "rk-bot" }, 201),
  });
  const form = await screen.findByRole("form", { name: "New key" });
  fireEvent.change(screen.getByLabelText("Name"), { target: { value: "bot" } });
  fireEvent.submit(form);
  await screen.findByText("rk-bot");
  fireEvent.click(screen.getByText("Back to the chat"));
  await screen.findByLabelText("Message");
  fireEvent.click(screen.getByText("Console"));
  await screen.findByRole("heading", { name: "Overview" });
  fireEvent.click(await screen.findByText("I have it"));
  expect(screen.queryByText("rk-bot")).toBeNull();
});

test("nothing is claimed of what is not known, and no test that has not begun is said to be passed", async () => {
  await arrive("/console/overview", "admin", {
    "GET /v1/status": () =>
      json({
        ...FACTS,
        last_swap: null,
        learning_frozen: null,
        self_test: { votes: 0, alarm: false, says: "nobody has decided yet" },
        reasons: { last_swap: "the ledger is away", learning_frozen: "the ledger is silent" },
      }),
  });
  expect(await figureOf("last swap")).toBe("last swapunknownthe ledger is away");
  expect(await figureOf("votes' self-test")).toBe("votes' self-testno votes yetnobody has decided yet");
  const learning = screen.getByText("learning", { selector: ".c-name" }).parentElement!;
  expect(learning.textContent).toBe("learning unknownUnknown: the ledger is silent");
  expect(screen.getByText("releases", { selector: ".c-name" }).parentElement!.textContent).toContain("Nothing is released");
});

test("how far off the next round is stands where none is open", async () => {
  const scheduled = Date.now() / 1000 + 3600;
  const next_round = { judgements: 16, needed: 48, scheduled };
  await arrive("/console/overview", "admin", { "GET /v1/status": () => json({ ...FACTS, next_round, reasons: {} }) });
  const said = (await screen.findByText(/^16 of 48 new judgements\./)).textContent;
  expect(said).toBe(
    "16 of 48 new judgements. The next round begins by itself at 48, or in 1 hour. It learns from what was said before, too.",
  );
});

test("while learning is frozen no round is said to begin by itself", async () => {
  await arrive("/console/overview", "admin", {
    "GET /v1/status": () => json({ ...FACTS, learning_frozen: true, reasons: {} }),
  });
  expect((await screen.findByText(/new judgements/)).textContent).toBe("16 of 48 new judgements.");
});

test("a round can be started while learning is frozen, and that is said before", async () => {
  await arrive("/console/overview", "admin", {
    "GET /v1/status": () => json({ ...FACTS, round: null, learning_frozen: true, reasons: {} }),
  });
  fireEvent.click(await screen.findByText("Start a round"));
  expect(screen.getByText(/^Learning is frozen: no round starts by itself\./)).toBeTruthy();
});

test("no swap is shown where none was, and a test that found nothing is quiet", async () => {
  const self_test = { votes: 12, alarm: false, says: "of 12 the second won 5" };
  await arrive("/console/overview", "admin", {
    "GET /v1/status": () => json({ ...FACTS, last_swap: null, self_test, reasons: {} }),
  });
  expect(await figureOf("votes' self-test")).toBe("votes' self-testquietof 12 the second won 5");
  expect(screen.queryByText("last swap")).toBeNull();
});

test.each([
  ["an audit", "an audit"],
  ["", "asked for in the console"],
])("learning is frozen for a reason, after a confirmation: %j", async (typed, reason) => {
  const asked = await arrive("/console/overview", "operator", { "POST /v1/rounds/freeze": () => json({ frozen: true }) });
  fireEvent.click(await screen.findByRole("button", { name: "Freeze learning" }));
  expect(asked.some(({ method }) => method === "POST")).toBe(false);
  fireEvent.change(screen.getByLabelText(/Reason/), { target: { value: typed } });
  fireEvent.submit(screen.getByLabelText(/Reason/).closest("form")!);
  await waitFor(() => expect(screen.queryByLabelText(/Reason/)).toBeNull());
  const [said] = asked.filter(({ method }) => method === "POST");
  expect([said!.path, said!.body]).toEqual(["/v1/rounds/freeze", { frozen: true, reason }]);
  await waitFor(() => expect(screen.getAllByRole("status").map((each) => each.textContent)).toContain("Freeze learning: done."));
  expect(screen.getByRole("button", { name: "Unfreeze releases" })).toBeTruthy();
});

test("a round is shown while it runs, with the curve so far", async () => {
  await arrive("/console/rounds/4", "operator", {
    "GET /v1/rounds/4": () => json(RUNNING),
    "GET /v1/rounds/4/course": () => json({ data: [step(1), step(2), step(3)] }),
  });
  expect((await screen.findByRole("progressbar")).getAttribute("aria-label")).toBe("PPO: step 3 of 40, 1:02 to go");
  expect(screen.getAllByRole("listitem").find((item) => item.getAttribute("aria-current") === "step")!.textContent).toBe(
    "●PPOunder way",
  );
  const score = screen.getByText("Score").closest("figure")!;
  await waitFor(() => expect(score.querySelector("svg [data-mark=line] path")).toBeTruthy());
  expect(screen.queryByText("KL to the reference")).toBeNull(); // nothing was told of it: no empty plot
  expect(screen.getByText(/^SFT was skipped: 3 new demonstrations/)).toBeTruthy();
});

test("a round that ended shows what the gate asked, and is asked for no more", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
  const checks = [{ name: "KL to the reference", value: null, sign: "<=", threshold: 12, passed: false }];
  const ended = { ...RUNNING, state: "refused", stage: "gate", finished: 1767225700, reason: "KL is too high",
    metrics: { ...RUNNING.metrics, ppo: {}, gate: { checks } } }; // prettier-ignore
  const asked = await arrive("/console/rounds/4", "operator", {
    "GET /v1/rounds/4": () => json(ended),
    "GET /v1/rounds/4/course": () => json({ data: [] }),
  });
  const row = (await screen.findByRole("rowheader", { name: "KL to the reference" })).closest("tr")!;
  expect([...row.children].map((cell) => cell.textContent)).toEqual(["KL to the reference", "failed", "no number", "at most 12"]);
  const before = asked.length;
  await vi.advanceTimersByTimeAsync(10_000);
  vi.useRealTimers();
  expect(asked.length - before).toBeLessThanOrEqual(2);
});

test("a round that is started is shown, also one that was open already", async () => {
  await arrive("/console/rounds", "operator", {
    "GET /v1/rounds": () => json({ ...LIST, frozen: true }),
    "POST /v1/rounds": () => json(RUNNING),
    "GET /v1/rounds/4": () => json(RUNNING),
    "GET /v1/rounds/4/course": () => json({ data: [] }),
  });
  await screen.findByText("No round has been run yet.");
  expect(screen.getByText(/learning is frozen/)).toBeTruthy();
  fireEvent.click(screen.getByRole("button", { name: "Start a round" }));
  fireEvent.submit(screen.getByText(/It trains on what has been said/).closest("form")!);
  await screen.findByRole("heading", { name: "Rounds" });
  await waitFor(() => expect(location.pathname).toBe("/console/rounds/4"));
});

const bounds = (mean: number) => ({ mean, low: mean - 0.125, high: mean + 0.125 });
const FIT = {
  prompts: 18, rankings: 21, pairs: 57, ties: 4, confidence: 0.95, accuracy: bounds(0.75), log_loss: bounds(0.5),
  brier: bounds(0.25), ece: bounds(0.125), kendall_tau: null, length_slope: null, agreement: null, agreement_pairs: 0,
  bins: [{ predicted: 0.625, observed: 0.5, pairs: 30 }, { predicted: 0.875, observed: 0.75, pairs: 27 }], lengths: [],
}; // prettier-ignore

test("the newest reward model is shown in full, and all of them beside each other", async () => {
  const policy = (version: number, metrics: object) => ({ id: `policy-v${version}`, version, created: 1, metrics });
  const data = [policy(0, {}), policy(1, { reward: { held_out: FIT } }), policy(2, { reward: { held_out: FIT } })];
  const asked = await arrive("/console/reward-model", "operator", {
    "GET /v1/policies": () => json({ data }),
    "GET /v1/policies/policy-v2": () => json({ reward_fit: FIT }),
    "GET /v1/policies/policy-v0": () => json({ reward_fit: null }),
  });
  await screen.findByRole("heading", { name: "policy-v2" });
  expect(screen.getByText("0.375 to 0.625 nats per pair; knowing nothing: 0.693")).toBeTruthy();
  expect(screen.getAllByRole("link", { name: /policy-v/ }).map((link) => link.textContent)).toEqual(["policy-v2", "policy-v1"]);
  const figure = screen.getByText("Reliability").closest("figure")!;
  await waitFor(() => expect(figure.querySelector("svg [data-mark=dot]")?.childElementCount).toBe(2));
  expect(figure.querySelector("svg [data-mark=link]")).toBeTruthy();
  expect(asked.filter(({ path }) => path.startsWith("/v1/policies/")).length).toBe(1);
});

test("a version without a reward model says so", async () => {
  await arrive("/console/reward-model/policy-v0", "operator", {
    "GET /v1/policies": () => json({ data: [] }),
    "GET /v1/policies/policy-v0": () => json({ reward_fit: null }),
  });
  await screen.findByText("policy-v0 has no reward model of its own.");
});

test.each(["audit", "feedback", "raters", "keys"])("what %s asks for is given up when it is left", async (view) => {
  await arrive(`/console/${view}`, "admin", { "GET /v1/": () => new Promise(() => {}) });
  const own = () => vi.mocked(fetch).mock.calls.filter(([path]) => String(path).startsWith(`/v1/${view}`));
  const givenUp = () => own().map(([, init]) => init!.signal?.aborted);
  await waitFor(() => expect(givenUp()).toContain(false));
  cleanup();
  expect(new Set(givenUp())).toEqual(new Set([true]));
});

test("a session that ended leads to signing in", async () => {
  await arrive("/console/overview", "operator", { "GET /v1/status": () => failure(401, "Expired.") });
  await screen.findByLabelText("API key");
});
