import { fireEvent, render, screen } from "@testing-library/react";
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

test.each([true, false])("before a round is started it is said whether learning is frozen: %s", async (frozen) => {
  gateway({ "GET /v1/rounds": () => json({ data: [], frozen }) });
  render(<RoundList />);
  fireEvent.click(await screen.findByText("Start a round"));
  expect(screen.queryAllByText(/^Learning is frozen/)).toHaveLength(frozen ? 1 : 0);
});
