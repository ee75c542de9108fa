import { describe, expect, it } from "vitest";
import type { ChatChunk } from "../api/client";
import { begun, finished, mirrored, votable, withChunk } from "./answers";
import { votesOn, voteSaid, writerOf } from "./votes";

const chunk = (choices: ChatChunk["choices"], ratchet?: ChatChunk["ratchet"]): ChatChunk => ({
  id: "cmp_1",
  object: "chat.completion.chunk",
  model: "policy",
  choices,
  ...(ratchet && { ratchet }),
});
const text = (index: number, content: string) => ({ index, delta: { content }, finish_reason: null });
const end = (index: number) => ({ index, delta: {}, finish_reason: "stop" });
const FACTS = { conversation_id: "conv_1", completion_ids: ["cmp_1:0", "cmp_1:1"], comparison_id: "cmp_1" };

describe("answers side by side", () => {
  it("take each choice into its slot", () => {
    let answers = begun(2);
    expect(votable(answers)).toBe(false);
    answers = withChunk(answers, chunk([text(1, "Be")], FACTS));
    answers = withChunk(answers, chunk([text(1, "cause"), text(0, "Air")]));
    expect(answers.slots.map((slot) => slot.text)).toEqual(["Air", "Because"]);
    expect(answers).toMatchObject({ responseId: "cmp_1", conversationId: "conv_1", comparisonId: "cmp_1" });
    expect(votable(answers)).toBe(true);
    expect(finished(answers)).toBe(false);
  });

  it("know which were stopped", () => {
    let answers = withChunk(begun(2), chunk([text(0, "a"), text(1, "b")], FACTS));
    answers = withChunk(answers, chunk([end(0)], { ...FACTS, stored: true }));
    answers = withChunk(answers, chunk([end(1)], { ...FACTS, stored: true, partial: true }));
    expect(answers.slots.map((slot) => slot.partial)).toEqual([false, true]);
    expect(finished(answers)).toBe(true);
  });

  it("follow one that was there", () => {
    const old = { completionId: "chatcmpl-0:0", text: "Old.", policyVersion: 2 };
    const facts = { conversation_id: "conv_1", completion_ids: ["chatcmpl-1:0"], policy_version: 3 };
    const answers = withChunk(begun(1, [old]), chunk([text(0, "New.")], facts), 1);
    expect(answers.slots.map((slot) => slot.text)).toEqual(["Old.", "New."]);
    expect(answers.completionIds).toEqual(["chatcmpl-0:0", "chatcmpl-1:0"]);
    expect(answers.policies).toEqual(["policy-v2", "policy-v3"]);
    expect(voteSaid(answers, "right", 1, 2)).toEqual({
      type: "comparison",
      left: "chatcmpl-0:0",
      right: "chatcmpl-1:0",
      winner: "right",
      shown_at: 1,
      answered_at: 2,
      presented_order: ["chatcmpl-0:0", "chatcmpl-1:0"],
    });
  });

  it("cannot be judged where one was cut before it began, but where one is complete and empty", () => {
    const some = withChunk(begun(2), chunk([text(0, "a")], FACTS));
    expect(votable(withChunk(some, chunk([end(1)], { ...FACTS, partial: true })))).toBe(false);
    expect(votable(withChunk(some, chunk([end(1)], FACTS)))).toBe(true);
  });

  it("cannot be judged where the ledger has them not", () => {
    let answers = withChunk(begun(1), chunk([text(0, "a")], { conversation_id: "c", completion_ids: ["x:0"] }));
    expect(votable(answers)).toBe(true);
    answers = withChunk(answers, chunk([end(0)], { conversation_id: "c", completion_ids: ["x:0"], stored: false }));
    expect(votable(answers)).toBe(false);
  });
});

describe("a pair with its sides swapped", () => {
  it("has names once both answers do", () => {
    let answers = begun(1, [{ completionId: "old:0", text: "Old.", policyVersion: 2 }]);
    expect([mirrored(answers).slots.map(({ text }) => text), mirrored(answers).completionIds]).toEqual([["", "Old."], []]);
    const facts = { conversation_id: "c", completion_ids: ["new:0"], policy_version: 3 };
    answers = withChunk(answers, chunk([text(0, "New.")], facts), 1);
    const { slots, completionIds, policies } = mirrored(answers);
    expect(slots.map(({ text }) => text)).toEqual(["New.", "Old."]);
    expect([completionIds, policies]).toEqual([["new:0", "old:0"], ["policy-v3", "policy-v2"]]);
  });
});

describe("votes", () => {
  it("are left and right of two, letters of more", () => {
    expect(votesOn(2).map(({ winner }) => winner)).toEqual(["left", "right", "tie", "both_bad"]);
    expect(votesOn(3).map(({ winner }) => winner)).toEqual(["A", "B", "C", "tie", "none"]);
    expect(votesOn(2).map(({ keys }) => keys)).toEqual([
      ["A", "1"],
      ["B", "2"],
      ["T", "0"],
      ["N", "-"],
    ]);
  });

  it("reveal by the same names", () => {
    expect(writerOf({ left: "policy-v3", right: "policy-v4" }, 2, 1)).toBe("policy-v4");
    expect(writerOf({ A: "policy-v3", B: "policy-v4", C: "policy-v5" }, 3, 2)).toBe("policy-v5");
    expect(writerOf(undefined, 2, 0)).toBeNull();
  });
});
