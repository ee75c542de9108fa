import { fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Comparison } from "./Comparison";
import { accepted, bodies, deleted, failure, gateway, json, Streamed, type Route } from "./gateway_double";
import type { Source } from "./useAnswers";

const MESSAGES = [{ role: "user" as const, content: "Why is the sky blue?" }];
const BLIND: Source = { kind: "blind", request: { model: "auto", k: 2, messages: MESSAGES } };
const FACTS = { comparison_id: "cmp_1", conversation_id: "conv_1", completion_ids: ["cmp_1:0", "cmp_1:1"] };
const VOTED = { continue_from: "cmp_1:1", reveal: { left: "policy-v2", right: "policy-v3" } };
const VOTE = { type: "comparison", comparison_id: "cmp_1", presented_order: ["cmp_1:0", "cmp_1:1"] };

const button = (name: RegExp) => screen.getByRole<HTMLButtonElement>("button", { name });
const answer = (name: string) => screen.getByRole("article", { name });
const says = (words: RegExp) => waitFor(() => expect(screen.getByRole("status").textContent).toMatch(words));

function shown(source: Source = BLIND, routes: Record<string, Route | Response | Response[]> = {}) {
  const streamed = new Streamed();
  const onDecided = vi.fn();
  const onUndone = vi.fn();
  const path = source.kind === "blind" ? "POST /v1/comparisons" : "POST /v1/chat/completions";
  const asked = gateway({
    [path]: () => streamed.response,
    "POST /v1/feedback": () => accepted("comparison", "fb_1", VOTED),
    "DELETE /v1/feedback": deleted("fb_1"),
    "POST /v1/chat/completions/": () => json({ object: "chat.completion.cancelled" }),
    ...routes,
  });
  const view = render(<Comparison source={source} onDecided={onDecided} onUndone={onUndone} />);
  return { streamed, asked, onDecided, onUndone, ...view };
}

afterEach(() => vi.unstubAllGlobals());

describe("two blind answers", () => {
  it("stream into their slots and are voted on by one key once they are complete", async () => {
    const { streamed, asked, onDecided } = shown();
    streamed.text(1, "Because ", FACTS);
    streamed.text(0, "Air.");
    streamed.text(1, "air.");
    streamed.finish(0, FACTS);
    streamed.finish(1, { ...FACTS, stored: true });
    streamed.end();
    await waitFor(() => expect(answer("Answer B").textContent).toContain("Because air."));
    expect(answer("Answer A").textContent).toContain("Air.");
    expect(document.body.textContent).not.toContain("policy-v");
    await screen.findByText("The answers are complete.");
    fireEvent.keyDown(document.body, { key: "b" });
    await says(/^Saved: B is better$/);
    expect(bodies(asked)).toEqual([
      ["POST /v1/comparisons", { ...BLIND.request, stream: true, stream_options: { resumable: true } }],
      ["POST /v1/feedback", { ...VOTE, winner: "right" }],
    ]);
    const { shown_at, answered_at } = asked[1]!.body as { shown_at: number; answered_at: number };
    expect(answered_at).toBeGreaterThanOrEqual(shown_at);
    expect(within(answer("Answer A")).getByText("policy-v2")).toBeTruthy();
    expect(within(answer("Answer B")).getByText("policy-v3")).toBeTruthy();
    await waitFor(() => expect(onDecided).toHaveBeenCalledTimes(1));
    expect(onDecided.mock.calls[0]![0]).toMatchObject({
      feedbackId: "fb_1",
      winner: "cmp_1:1",
      vote: "right",
      conversationId: "conv_1",
    });
  });

  it.each([
    ["1", "left"],
    ["a", "left"],
    ["2", "right"],
    ["0", "tie"],
    ["t", "tie"],
    ["n", "both_bad"],
    ["-", "both_bad"],
  ])("take the key %s as %s", async (key, winner) => {
    const { streamed, asked } = shown();
    streamed.chunk(
      [0, 1].map((index) => ({ index, delta: { content: "x" }, finish_reason: null })),
      FACTS,
    );
    await waitFor(() => expect(button(/Tie/).disabled).toBe(false));
    fireEvent.keyDown(document.body, { key });
    await says(/^Saved/);
    expect(asked[1]!.body!.winner).toBe(winner);
  });

  it("may be voted on while they are written, once both have begun; what was cut is marked", async () => {
    const { streamed, asked, onDecided } = shown();
    streamed.text(0, "Air scatters", FACTS);
    await waitFor(() => expect(answer("Answer A").textContent).toContain("Air scatters"));
    expect(button(/A is better/).disabled).toBe(true);
    fireEvent.keyDown(document.body, { key: "a" });
    expect(asked).toHaveLength(1);
    streamed.text(1, "It");
    await waitFor(() => expect(button(/A is better/).disabled).toBe(false));
    fireEvent.click(button(/A is better/));
    await says(/^Saved/);
    streamed.chunk(
      [0, 1].map((index) => ({ index, delta: {}, finish_reason: "stop" })),
      { ...FACTS, partial: true, stored: true },
    );
    streamed.end();
    await waitFor(() => expect(within(answer("Answer A")).getByText("stopped early")).toBeTruthy());
    await waitFor(() => expect(onDecided).toHaveBeenCalledTimes(1));
  });

  it("can be undone and voted on again", async () => {
    const { streamed, asked, onDecided, onUndone } = shown();
    streamed.chunk(
      [0, 1].map((index) => ({ index, delta: { content: "x" }, finish_reason: "stop" })),
      FACTS,
    );
    streamed.end();
    await waitFor(() => expect(button(/Tie/).disabled).toBe(false));
    fireEvent.click(button(/Tie/));
    await says(/^Saved: Tie/);
    await waitFor(() => expect(document.activeElement).toBe(button(/Undo/)));
    fireEvent.keyDown(document.body, { key: "u" });
    await says(/^Taken back$/);
    await waitFor(() => expect(onUndone).toHaveBeenCalledTimes(1));
    expect(document.body.textContent).not.toContain("policy-v");
    fireEvent.click(button(/Both bad/));
    await says(/^Saved: Both bad/);
    expect(asked.map(({ method }) => method)).toEqual(["POST", "POST", "DELETE", "POST"]);
    await waitFor(() => expect(onDecided).toHaveBeenCalledTimes(2));
  });

  it("keep a vote that was not saved for another try, blind until then", async () => {
    const answers = [failure(503, "away", "ledger_unavailable"), accepted("comparison", "fb_1", VOTED)];
    const { streamed, asked, onDecided } = shown(BLIND, { "POST /v1/feedback": answers });
    streamed.chunk(
      [0, 1].map((index) => ({ index, delta: { content: "x" }, finish_reason: "stop" })),
      FACTS,
    );
    await waitFor(() => expect(button(/B is better/).disabled).toBe(false));
    fireEvent.click(button(/B is better/));
    await says(/^Not saved/);
    expect(onDecided).not.toHaveBeenCalled();
    expect(document.body.textContent).not.toContain("policy-v");
    fireEvent.click(button(/Try again/));
    await says(/^Saved/);
    expect(asked[2]!.body).toEqual(asked[1]!.body);
  });

  it("are not countable when one of them failed", async () => {
    const { streamed, asked } = shown();
    streamed.chunk(
      [0, 1].map((index) => ({ index, delta: { content: "x" }, finish_reason: null })),
      FACTS,
    );
    streamed.fail("the engine is gone");
    expect((await screen.findByRole("alert")).textContent).toContain("cannot be compared");
    expect(button(/A is better/).disabled).toBe(true);
    fireEvent.keyDown(document.body, { key: "a" });
    expect(asked.filter(({ path }) => path === "/v1/feedback")).toEqual([]);
    expect(button(/Ask again/)).toBeTruthy();
  });

  it("go on where a connection broke off", async () => {
    const rest = new Streamed();
    const { streamed, asked } = shown(BLIND, { "GET /v1/chat/completions/cmp_1/stream": () => rest.response });
    streamed.text(0, "Air ", FACTS);
    streamed.text(1, "Be");
    await waitFor(() => expect(answer("Answer B").textContent).toContain("Be"));
    streamed.breakOff();
    await waitFor(() => expect(asked).toHaveLength(2));
    expect(asked[1]!.headers["last-event-id"]).toBe("2");
    rest.text(1, "cause.");
    rest.chunk(
      [0, 1].map((index) => ({ index, delta: {}, finish_reason: "stop" })),
      FACTS,
    );
    rest.end();
    await screen.findByText("The answers are complete.");
    expect(answer("Answer B").textContent).toContain("Because.");
    expect(screen.queryByRole("alert")).toBeNull();
  });

  it("stop by Escape, and when nobody looks any more", async () => {
    const { streamed, asked, unmount } = shown();
    streamed.text(0, "x", FACTS);
    await waitFor(() => expect(answer("Answer A").textContent).toContain("x"));
    fireEvent.keyDown(document.body, { key: "Escape" });
    await waitFor(() => expect(asked[1]?.path).toBe("/v1/chat/completions/cmp_1/cancel"));
    unmount();
    await waitFor(() => expect(asked).toHaveLength(3));
  });
});

describe("another answer beside one that was there", () => {
  it("is asked for as a sibling and compared by the ids of both", async () => {
    const source: Source = {
      kind: "another",
      existing: { completionId: "chatcmpl-0:0", text: "Old.", policyVersion: 2 },
      request: { model: "policy", messages: MESSAGES, metadata: { conversation_id: "conv_1" } },
    };
    const { streamed, asked, onDecided } = shown(source, {
      "POST /v1/feedback": () => accepted("comparison", "fb_1", { continue_from: "chatcmpl-1:0" }),
    });
    const facts = { policy_version: 3, conversation_id: "conv_1", completion_ids: ["chatcmpl-1:0"] };
    streamed.chunk([{ index: 0, delta: { content: "New." }, finish_reason: "stop" }], facts, "chatcmpl-1");
    streamed.end();
    await waitFor(() => expect(button(/B is better/).disabled).toBe(false));
    expect(answer("Answer A").textContent).toContain("Old.");
    expect(document.body.textContent).not.toContain("policy-v");
    fireEvent.keyDown(document.body, { key: "2" });
    await says(/^Saved/);
    expect(bodies(asked)[1]).toEqual([
      "POST /v1/feedback",
      {
        type: "comparison",
        left: "chatcmpl-0:0",
        right: "chatcmpl-1:0",
        winner: "right",
        presented_order: ["chatcmpl-0:0", "chatcmpl-1:0"],
      },
    ]);
    expect(within(answer("Answer B")).getByText("policy-v3")).toBeTruthy();
    await waitFor(() => expect(onDecided.mock.calls[0]?.[0]).toMatchObject({ winner: "chatcmpl-1:0" }));
  });
});
