import { fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import type { Leaderboard as Board, Standing } from "../../api/policies";
import { gateway, json } from "../../rating/gateway_double";
import { Leaderboard } from "../views/Leaderboard";
import { remarks } from "./words";

const COUNTS = { votes: 12, wins: 8, ties: 1, losses: 3, raters: 4 };
const SURE: Standing = {
  version: 2,
  status: "ranked",
  strength: { value: 0.5, low: 0.1, high: 0.9 },
  elo: { value: 1086.9, low: 1017.4, high: 1156.3 },
  against_stable: { value: 0.62, low: 0.52, high: 0.71 },
  ...COUNTS,
};
const BOARD: Board = {
  anchor: 0,
  stable: 1,
  confidence: 0.95,
  votes: 20,
  ties: 3,
  raters: 5,
  standings: [
    SURE,
    { ...SURE, version: 1, against_stable: { value: 0.5, low: 0.5, high: 0.5 } },
    { ...SURE, version: 3, status: "one_sided", strength: null, elo: null, against_stable: null },
  ],
  left_wins: { value: 0.531, low: 0.48, high: 0.58 },
  longer_wins: null,
  fragility: { leader: 2, rival: 1, dropped: 4 },
};

afterEach(() => vi.unstubAllGlobals());

test("the table has a row for each version, without what means nothing", async () => {
  gateway({ "GET /v1/leaderboard": () => json(BOARD), "GET /v1/policies": () => json({ data: [] }) });
  render(<Leaderboard />);
  const row = async (name: string) => (await screen.findByText(name, { selector: "th a" })).closest("tr")!.textContent;
  expect(await row("policy-v2")).toBe("policy-v210871017 to 115662%52% to 71%128134");
  expect(await row("policy-v1")).toBe("policy-v1stable10871017 to 1156––128134");
  expect(await row("policy-v3")).toBe("policy-v3unknown–––128134");
});

test("before the first vote the anchor has its Elo by definition, and the others have none", async () => {
  const silent = { votes: 0, wins: 0, ties: 0, losses: 0, raters: 0 };
  const none = { status: "no_votes", strength: null, elo: null, against_stable: null, ...silent } as const;
  const board = { ...BOARD, votes: 0, fragility: null, standings: [{ ...none, version: 0 }, { ...none, version: 1 }] };
  gateway({ "GET /v1/leaderboard": () => json(board), "GET /v1/policies": () => json({ data: [] }) });
  render(<Leaderboard />);
  const row = async (name: string) => (await screen.findByText(name, { selector: "th a" })).closest("tr")!.textContent;
  expect(await row("policy-v0")).toBe("policy-v0anchor1000by definition––00000");
  expect(await row("policy-v1")).toBe("policy-v1stableno votes–––00000");
  expect(screen.queryByText("unknown")).toBeNull();
});

test("whose votes, which and from where they are measured is asked of the gateway", async () => {
  const asked = gateway({
    "GET /v1/leaderboard": () => json(BOARD),
    "GET /v1/policies": () => json({ data: [{ version: 0 }, { version: 1 }] }),
  });
  render(<Leaderboard />);
  await screen.findByText("policy-v1", { selector: "option" });
  fireEvent.change(screen.getByLabelText("Votes of"), { target: { value: "evaluation" } });
  fireEvent.change(screen.getByLabelText("Measured from"), { target: { value: "1" } });
  fireEvent.click(screen.getByLabelText("Only blind votes"));
  await waitFor(() => expect(asked.at(-1)!.path).toBe("/v1/leaderboard?raters=evaluation&blind=true&anchor=1"));
});

test("what the table does not say is said below it", () => {
  expect(remarks(BOARD)).toEqual([
    "20 votes by 5 raters, 3 of them ties. Intervals are 95%, with raters as what is independent; 1000 is policy-v0.",
    "The left one of two equal answers is preferred in 53.1% (48% to 58%): taken out of Elo.",
    "Without 4 votes (20%) policy-v1 would be ahead of policy-v2.",
    "policy-v3 cannot be ranked: it won all votes that link it with policy-v0, or lost all.",
  ]);
  expect(remarks({ ...BOARD, votes: 0 })).toHaveLength(1);
});

test("of a lone rater's votes nothing is said in the plural, and that the interval is unknown says why", () => {
  const alone = { value: 0.999, low: null, high: null };
  const said = remarks({ ...BOARD, votes: 6, raters: 1, ties: 0, left_wins: alone });
  expect(said[0]).toMatch(/^6 votes by 1 rater, 0 of them ties/);
  expect(said[1]).toBe(
    "The left one of two equal answers is preferred in 99.9% (interval unknown: one rater): taken out of Elo.",
  );
});
