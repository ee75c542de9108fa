import { fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Round } from "../../api/rounds";
import { gateway, json } from "../../rating/gateway_double";
import { ROUND } from "./round_double";
import { RoundList } from "./RoundList";

const QUEUED: Round = {
  ...ROUND,
  id: 2,
  state: "queued",
  stage: "collect",
  attempts: 0,
  trigger: "operator",
  actor: "root",
  created: 1767225600,
};

beforeEach(() => {
  HTMLDialogElement.prototype.showModal ??= vi.fn(); // jsdom has no modal dialogs
  HTMLDialogElement.prototype.close ??= vi.fn();
});
afterEach(() => vi.unstubAllGlobals());

test.each([
  ["queued", 0],
  ["running", 0],
  ["published", 1],
] as const)("while a round is %s, %i more can be started", async (state, buttons) => {
  gateway({ "GET /v1/rounds": () => json({ data: [{ ...QUEUED, state }], frozen: false }) });
  render(<RoundList />);
  await screen.findByRole("region", { name: "Rounds" });
  expect(screen.queryAllByRole("button", { name: "Start a round" })).toHaveLength(buttons);
  expect(screen.queryAllByText(/is open already/)).toHaveLength(1 - buttons);
});

test("older rounds than the newest page are shown when they are asked for, and the newest stay new", async () => {
  const numbered = (...ids: number[]) => ids.map((id) => ({ ...QUEUED, id, state: "published" }));
  let newest = numbered(5, 4);
  const asked = gateway({
    "GET /v1/rounds": () => json({ data: newest, has_more: true, frozen: false }),
    "GET /v1/rounds?limit=50&before=4": () => json({ data: numbered(3, 2), has_more: true, frozen: false }),
    "GET /v1/rounds?limit=50&before=2": () => json({ data: numbered(1), has_more: false, frozen: false }),
    "GET /v1/rounds?limit=50&before=5": () => json({ data: numbered(4, 3), has_more: true, frozen: false }),
  });
  const shown = () => screen.getAllByRole("rowheader").map(({ textContent }) => textContent);
  const more = async () => fireEvent.click(await screen.findByText("Show more"));
  render(<RoundList />);
  await more();
  await waitFor(() => expect(shown()).toEqual(["round 5", "round 4", "round 3", "round 2"]));
  await more();
  await waitFor(() => expect(shown()).toEqual(["round 5", "round 4", "round 3", "round 2", "round 1"]));
  expect(screen.queryByText("Show more")).toBeNull();

  newest = numbered(6, 5);
  fireEvent(document, new Event("visibilitychange")); // as when somebody comes back to the page
  await waitFor(() => expect(shown()).toEqual(["round 6", "round 5"]));
  await more();
  await waitFor(() => expect(shown()).toEqual(["round 6", "round 5", "round 4", "round 3"]));
  expect(asked.filter(({ path }) => path.includes("before=5"))).toHaveLength(1);
});

test.each([true, false])("before a round is started it is said whether learning is frozen: %s", async (frozen) => {
  gateway({ "GET /v1/rounds": () => json({ data: [], frozen }) });
  render(<RoundList />);
  fireEvent.click(await screen.findByText("Start a round"));
  expect(screen.queryAllByText(/^Learning is frozen/)).toHaveLength(frozen ? 1 : 0);
});
