import { fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { KeptFeedback } from "../api/client";
import { deleted, failure, gateway, json } from "./gateway_double";
import { MyData } from "./MyData";
import { detailsOf, titleOf } from "./said_words";

const kept = (id: string, judgement: Record<string, unknown> & { type: KeptFeedback["type"] }): KeptFeedback => ({
  object: "feedback",
  id,
  type: judgement.type,
  judgement,
  created: 1767225600.5,
  revision: 1,
  replaces: null,
  status: "accepted",
  learned: id === "fb_1" ? ["policy-v8", "policy-v9"] : [],
});
const UP = kept("fb_1", {
  type: "rating",
  completion_id: "r:0",
  value: 1,
  metric: null,
  reasons: ["clear"],
  comment: null,
});
const DOWN = kept("fb_2", {
  type: "rating",
  completion_id: "r:1",
  value: -1,
  metric: null,
  reasons: [],
  comment: "No.",
});
const FLAG = kept("fb_3", { type: "flag", completion_id: "r:1", reasons: ["unsafe"], comment: null });

const page = (data: KeptFeedback[], has_more = false) =>
  json({ object: "list", data, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null, has_more });
const ERASED = {
  object: "me.deleted",
  deleted: true,
  conversations: 1,
  completions: 5,
  feedback: 3,
  learned: { rounds: [4], policies: ["policy-v3", "policy-v4"] },
  restarted: [5],
};

afterEach(() => vi.unstubAllGlobals());

describe("what I said", () => {
  it("lists all pages, newest first, and takes back", async () => {
    const asked = gateway({
      "GET /v1/feedback": [page([UP, DOWN], true), page([FLAG])],
      "DELETE /v1/feedback": deleted("fb_2"),
    });
    render(<MyData />);
    await screen.findByText("Report");
    await screen.findByText("Thumb up");
    expect(screen.getAllByText(/Helped to train/).map((told) => told.textContent)).toEqual([
      "Helped to train policy-v8, policy-v9.",
    ]);
    const items = screen.getAllByRole("listitem");
    expect(items.map((item) => item.querySelector("strong")!.textContent)).toEqual([
      "Report",
      "Thumb down",
      "Thumb up",
    ]);
    expect(asked.map(({ path }) => path)).toEqual(["/v1/feedback?limit=100", "/v1/feedback?limit=100&after=fb_2"]);
    fireEvent.click(screen.getByRole("button", { name: "Take back: Thumb down" }));
    await waitFor(() => expect(within(items[1]!).getByRole("status").textContent).toBe("Taken back"));
    expect(asked[2]).toMatchObject({ method: "DELETE", path: "/v1/feedback/fb_2" });
  });

  it("says of which question each was, and leads to its conversation if that is there", async () => {
    const about = (kept: KeptFeedback, of: KeptFeedback["about"]) => ({ ...kept, about: of });
    const rows = [
      about(UP, { conversation_id: "my chat", question: "tea?" }),
      about(DOWN, { conversation_id: null, question: "milk?" }),
      about(FLAG, null),
    ];
    gateway({ "GET /v1/feedback": page(rows) });
    const onLeave = vi.fn();
    render(<MyData onLeave={onLeave} />);
    const [flag, down, up] = await screen.findAllByRole("listitem");
    expect([flag, down].map((item) => within(item!).queryByRole("link"))).toEqual([null, null]);
    expect(within(down!).getByText("milk?")).toBeTruthy();
    fireEvent.click(within(up!).getByRole("link", { name: "tea?" }));
    expect([location.pathname, onLeave.mock.calls.length]).toEqual(["/chat/my%20chat", 1]);
  });

  it("says so when taking back failed", async () => {
    gateway({ "GET /v1/feedback": page([UP]), "DELETE /v1/feedback": failure(503, "away") });
    render(<MyData />);
    fireEvent.click(await screen.findByRole("button", { name: /Take back/ }));
    await screen.findByText("Not taken back. away");
    expect(screen.getByRole<HTMLButtonElement>("button", { name: /Take back/ }).disabled).toBe(false);
  });

  it("says so when it cannot be read, or is nothing", async () => {
    gateway({ "GET /v1/feedback": failure(503, "away") });
    const { unmount } = render(<MyData />);
    expect((await screen.findByRole("alert")).textContent).toBe("away");
    unmount();
    gateway({ "GET /v1/feedback": page([]) });
    render(<MyData />);
    await screen.findByText("Nothing yet.");
  });
});

describe("my data", () => {
  it("is exported as a download", () => {
    gateway({ "GET /v1/feedback": page([]) });
    render(<MyData />);
    const link = screen.getByRole("link", { name: "Export my data" });
    expect(link.getAttribute("href")).toBe("/v1/me/export");
    expect(link.hasAttribute("download")).toBe(true);
  });

  it("is erased only after the words are typed, and then names what had learned from it", async () => {
    const asked = gateway({ "GET /v1/feedback": () => page([]), "DELETE /v1/me": json(ERASED) });
    const onErased = vi.fn();
    render(<MyData onErased={onErased} />);
    const erase = screen.getByRole<HTMLButtonElement>("button", { name: "Erase everything" });
    const field = screen.getByRole("textbox");
    fireEvent.change(field, { target: { value: "delete" } });
    expect(erase.disabled).toBe(true);
    fireEvent.submit(field.closest("form")!);
    expect(asked.filter(({ method }) => method === "DELETE")).toEqual([]);
    fireEvent.change(field, { target: { value: "Delete everything" } });
    fireEvent.click(erase);
    await screen.findByText("Erased: 1 conversation, 5 answers, 3 judgements.");
    expect(
      screen.getByText("policy-v3, policy-v4 had learned from it in round 4. Later rounds do without it."),
    ).toBeTruthy();
    expect(screen.getByText("Round 5 had collected some of it, and collects again without.")).toBeTruthy();
    expect(onErased).toHaveBeenCalledTimes(1);
    expect(asked.filter(({ path }) => path === "/v1/me")).toHaveLength(1);
  });

  it("may not be all erased where that failed", async () => {
    gateway({ "GET /v1/feedback": () => page([]), "DELETE /v1/me": failure(503, "away") });
    render(<MyData />);
    fireEvent.change(screen.getByRole("textbox"), { target: { value: "delete everything" } });
    fireEvent.click(screen.getByRole("button", { name: "Erase everything" }));
    expect((await screen.findByRole("alert")).textContent).toBe("It may not all be erased: do it again. away");
  });
});

describe("a judgement in words", () => {
  it.each([
    [UP, "Thumb up", ["clear"]],
    [kept("1", { type: "rating", value: 0.7, metric: "tone" }), "Mark 0.70 for tone", []],
    [kept("1", { type: "comparison", winner: "both_bad" }), "Both answers are bad", []],
    [
      kept("1", { type: "ranking", candidates: ["a", "b", "c"], ranking: [["b"], ["a", "c"]], partial: false }),
      "Ranking of 3: second > first = third",
      [],
    ],
    [
      kept("1", { type: "ranking", candidates: ["a", "b"], ranking: [["b"]], partial: true, none_acceptable: true }),
      "Ranking of 2: second > the rest; none is acceptable",
      [],
    ],
    [kept("1", { type: "demonstration", content: "Blue.", based_on_edit: true }), "Corrected answer", ["Blue."]],
    [kept("1", { type: "comment", content: "Too short." }), "Comment", ["Too short."]],
  ] as [KeptFeedback, string, string[]][])("%#", (judgement, title, details) => {
    expect(titleOf(judgement)).toBe(title);
    expect(detailsOf(judgement)).toEqual(details);
  });
});
