import { fireEvent, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Round } from "../../api/rounds";
import { failure, gateway, json } from "../../rating/gateway_double";
import { ROUND } from "./round_double";
import { RoundPage } from "./RoundPage";

const LEASED: Round = { ...ROUND, created: 1767225600, lease_until: Date.now() + 60_000 };
const CANCELLED: Round = { ...LEASED, state: "cancelled", finished: 1767225700, reason: "cancelled by root: a test" };

beforeEach(() => {
  HTMLDialogElement.prototype.showModal ??= vi.fn(); // jsdom has no modal dialogs
  HTMLDialogElement.prototype.close ??= vi.fn();
});
afterEach(() => vi.unstubAllGlobals());

async function cancel(): Promise<void> {
  fireEvent.click(await screen.findByText("Cancel the round"));
  screen.getByText(/the next round learns from it, too, but starts by itself only after as many new judgements/);
  fireEvent.change(screen.getByLabelText(/^Reason/), { target: { value: "a test" } });
  fireEvent.click(screen.getByText("Cancel the round", { selector: "footer button" }));
}

test("an open round is cancelled after a confirmation, with a reason, and says so", async () => {
  let round = LEASED;
  const asked = gateway({
    "GET /v1/rounds/4": () => json(round),
    "GET /v1/rounds/4/course": () => json({ data: [] }),
    "POST /v1/rounds/4/cancel": () => json((round = CANCELLED)),
  });
  render(<RoundPage id={4} />);
  await cancel();
  await screen.findByText("cancelled by root: a test");
  const posted = asked.filter(({ method }) => method === "POST");
  expect(posted.map(({ path, body }) => [path, body])).toEqual([["/v1/rounds/4/cancel", { reason: "a test" }]]);
  expect(screen.queryByText("Cancel the round")).toBeNull();
  const ended = screen.getAllByRole("listitem").filter(({ textContent }) => textContent!.includes("ended here"));
  expect(ended.map(({ textContent }) => textContent)).toEqual(["✕PPOended here"]);
});

test("one that was published meanwhile is not cancelled, and that is said", async () => {
  gateway({
    "GET /v1/rounds/4": () => json(LEASED),
    "GET /v1/rounds/4/course": () => json({ data: [] }),
    "POST /v1/rounds/4/cancel": () => failure(409, "round 4 is over: published", "conflict"),
  });
  render(<RoundPage id={4} />);
  await cancel();
  await screen.findByText(/^Somebody else was quicker, and this was not done: .*over: published/);
});

test.each(["published", "refused", "failed", "cancelled"] as const)("one that is %s has no such button", async (state) => {
  gateway({
    "GET /v1/rounds/4": () => json({ ...CANCELLED, state }),
    "GET /v1/rounds/4/course": () => json({ data: [] }),
  });
  render(<RoundPage id={4} />);
  await screen.findByText("Round 4");
  expect(screen.queryByText("Cancel the round")).toBeNull();
});
