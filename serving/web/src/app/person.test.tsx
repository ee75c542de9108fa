import { fireEvent, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { failure, gateway, json } from "../rating/gateway_double";

const JOE = { name: "joe", role: "user", rater: "rater_1", single_user: false };
const ANN = { name: "ann", role: "user", rater: "rater_2", single_user: false };
const PAGE = { object: "list", data: [], has_more: false };

beforeEach(() => {
  vi.resetModules(); // a page arrives once
  vi.stubGlobal("matchMedia", () => ({ matches: false }));
  localStorage.clear();
  sessionStorage.clear();
  history.replaceState(null, "", "/");
});
afterEach(() => vi.unstubAllGlobals());

async function arrive(routes: Parameters<typeof gateway>[0]) {
  gateway({ "GET /v1/conversations": () => json(PAGE), ...routes });
  const { App } = await import("./App");
  render(<App />);
}

const drafts = () => Object.keys(localStorage).filter((key) => key.startsWith("ratchet.draft."));
const field = () => screen.findByLabelText<HTMLTextAreaElement>("Message");

/** JOE was here until the session ended, and left a draft and a trial that waits. */
function left() {
  for (const storage of [localStorage, sessionStorage]) storage.setItem("ratchet.person", JOE.rater);
  localStorage.setItem("ratchet.draft.new", "half a thought");
  const trial = { messages: [{ role: "user", content: "milk?" }], known: [], way: { kind: "rank-known", answers: [] } };
  sessionStorage.setItem("ratchet.trials", JSON.stringify({ "web-9": trial }));
}

async function byKey() {
  fireEvent.change(await screen.findByLabelText("API key"), { target: { value: "rk-1" } });
  fireEvent.click(screen.getByRole("button", { name: "Sign in" }));
}

test.each([
  ["by a key", "/", byKey],
  ["by an invitation", "/join#inv_1", async () => undefined],
])("another person who comes in %s finds nothing of whose session ended", async (_, address, signIn) => {
  left();
  history.replaceState(null, "", address);
  const person = [failure(401, "Nobody."), json(ANN)]; // whoever has no invitation is tried as the only user
  if (address !== "/") person.shift();
  await arrive({ "GET /v1/session": failure(401, "Expired."), "POST /v1/session": person });
  await signIn();
  expect((await field()).value).toBe("");
  expect(screen.queryByText("milk?")).toBeNull();
  expect([drafts(), Object.keys(sessionStorage)]).toEqual([[], ["ratchet.person"]]);
});

test("another person who is in already by another tab finds their own draft, and no trial of whose tab it was", async () => {
  left();
  localStorage.setItem("ratchet.person", ANN.rater);
  await arrive({ "GET /v1/session": () => json(ANN) });
  expect((await field()).value).toBe("half a thought");
  expect(screen.queryByText("milk?")).toBeNull();
});

test("the same person finds what they wrote when they sign in again", async () => {
  left();
  const person = [failure(401, "Nobody."), json(JOE)];
  await arrive({ "GET /v1/session": failure(401, "Expired."), "POST /v1/session": person });
  await byKey();
  expect((await field()).value).toBe("half a thought");
  expect(screen.getByText("milk?")).toBeTruthy();
});
