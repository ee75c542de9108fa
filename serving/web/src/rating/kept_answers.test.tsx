import { fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { Comparison } from "./Comparison";
import { accepted, failure, gateway, json, Streamed } from "./gateway_double";
import type { Source } from "./useAnswers";

const messages = [{ role: "user" as const, content: "tea?" }];
const BLIND: Source = { kind: "blind", request: { model: "auto", k: 2, messages }, responseId: "cmp_1" };
const FACTS = { comparison_id: "cmp_1", conversation_id: "web-1", completion_ids: ["cmp_1:0", "cmp_1:1"], stored: true };
const GONE = () => failure(404, "No stream.", "stream_not_found");
const answer = (name: string) => screen.getByRole("article", { name });
const complete = () => screen.findByText("The answers are complete.");

afterEach(() => vi.unstubAllGlobals());

test("answers that were left are read again from their beginning, and nothing is asked anew", async () => {
  const streamed = new Streamed();
  const asked = gateway({
    "GET /v1/chat/completions/cmp_1/stream": streamed.response,
    "POST /v1/feedback": accepted("comparison", "fb_1", { reveal: {} }),
  });
  const memory = { keep: vi.fn(), keeps: () => true, ranking: () => null, keepRanking: vi.fn() };
  const view = render(<Comparison source={BLIND} memory={memory} onDecided={vi.fn()} />);
  streamed.text(0, "Green.", FACTS);
  streamed.text(1, "Bla");
  await waitFor(() => expect(answer("Answer B").textContent).toContain("Bla"));
  expect(asked[0]!.headers["last-event-id"]).toBe("0");
  expect(memory.keep.mock.calls).toEqual([["cmp_1"]]);
  view.unmount();
  expect(asked.map(({ method }) => method)).toEqual(["GET"]);
});

test("answers whose stream is gone come from where they were kept, each in its place", async () => {
  const kept = (slot: number, content: string) => {
    return { completion_id: `cmp_1:${slot}`, message: { role: "assistant", content }, partial: slot === 1 };
  };
  const { completion_ids, conversation_id } = FACTS;
  const asked = gateway({
    "GET /v1/chat/completions/cmp_1/stream": GONE,
    "GET /v1/comparisons/cmp_1": json({ id: "cmp_1", completion_ids, conversation_id, answers: [kept(1, "Black"), kept(0, "Green.")] }),
    "POST /v1/feedback": accepted("comparison", "fb_1", { reveal: {} }),
  });
  render(<Comparison source={BLIND} onDecided={vi.fn()} />);
  await complete();
  expect(answer("Answer A").textContent).toBe("Answer AGreen.");
  expect(answer("Answer B").textContent).toBe("Answer Bstopped earlyBlack");
  fireEvent.keyDown(document.body, { key: "b" });
  await waitFor(() => expect(asked.at(-1)!.body).toMatchObject({ comparison_id: "cmp_1", winner: "right" }));
});

test("what was shown before the stream was gone is not shown twice", async () => {
  const streamed = new Streamed();
  const ratchet = { conversation_id: "web-1", completion_ids: ["chatcmpl-1:0"], policy_version: 3, partial: true };
  gateway({
    "POST /v1/chat/completions": streamed.response,
    "GET /v1/chat/completions/chatcmpl-1/stream": GONE,
    "GET /v1/chat/completions/chatcmpl-1": json({
      choices: [{ index: 0, message: { role: "assistant", content: "Black, as" }, finish_reason: "stop" }],
      ratchet,
    }),
  });
  const existing = { completionId: "chatcmpl-0:0", text: "Green." };
  render(
    <Comparison source={{ kind: "another", existing, request: { model: "policy", messages } }} onDecided={vi.fn()} />,
  );
  streamed.chunk([{ index: 0, delta: { content: "Black, " }, finish_reason: null }], ratchet, "chatcmpl-1");
  await waitFor(() => expect(answer("Answer B").textContent).toContain("Black, "));
  streamed.breakOff();
  await complete();
  expect(answer("Answer B").textContent).toBe("Answer Bstopped earlyBlack, as");
});

test("answers of which nothing was kept can be asked for again", async () => {
  const gone = () => failure(404, "No comparison cmp_1.", "comparison_not_found");
  const again = new Streamed();
  const asked = gateway({
    "GET /v1/chat/completions/cmp_1/stream": GONE,
    "GET /v1/comparisons/cmp_1": gone,
    "POST /v1/comparisons": again.response,
  });
  render(<Comparison source={BLIND} onDecided={vi.fn()} />);
  expect((await screen.findByRole("alert")).textContent).toContain("cannot be compared");
  fireEvent.click(screen.getByRole("button", { name: "Ask again" }));
  await waitFor(() => expect(asked.map(({ method }) => method)).toEqual(["GET", "GET", "POST"]));
});
