import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { TreeNode } from "../api/client";
import { firstQuestions, openTrial, rememberTrial } from "./open_trials";
import { ChatStore } from "./store";
import { indexed, turnsTo } from "./tree";
import { rankingOf } from "./trials";

const node = (at: number): TreeNode => ({
  completion_id: `c:${at}`, response_id: "c", choice: at, parent_id: null, content: `Answer ${at}.`, created: at,
  new_messages: [{ role: "user", content: "tea?" }], policy_version: at === 0 ? null : at, finish_reason: "stop",
  partial: false, siblings: [],
});

/** What is ranked of so many answers. */
function ranked(count: number) {
  const store = new ChatStore("web-1", false);
  const nodes = indexed(Array.from({ length: count }, (_, at) => node(at)));
  store.state = { ...store.state, nodes };
  const trial = rankingOf(store, turnsTo(nodes, "c:0").at(-1)!);
  if (trial.way.kind !== "rank-known") throw new Error("it ranks answers that are there");
  return { trial, answers: trial.way.answers };
}

const ids = (count: number) => ranked(count).answers.map(({ completionId }) => completionId);

beforeEach(() => sessionStorage.clear());
afterEach(() => vi.restoreAllMocks());

test("answers that are there are ranked in an order that is drawn, each with its text and its author", () => {
  vi.spyOn(Math, "random").mockReturnValueOnce(0).mockReturnValueOnce(0.99);
  expect(ranked(3).answers).toEqual([
    { completionId: "c:2", text: "Answer 2.", policy: "policy-v2" },
    { completionId: "c:1", text: "Answer 1.", policy: "policy-v1" },
    { completionId: "c:0", text: "Answer 0.", policy: null },
  ]);
  vi.restoreAllMocks();
  const first = new Set(Array.from({ length: 200 }, () => ids(3)[0])); // none of three is missed but once in 10^35
  expect([...first].sort()).toEqual(["c:0", "c:1", "c:2"]);
});

test("of more than eight the newest are ranked", () => {
  expect(ids(10).sort()).toEqual([2, 3, 4, 5, 6, 7, 8, 9].map((at) => `c:${at}`));
});

test("a refresh finds them in the order that was drawn", () => {
  const { trial } = ranked(4);
  rememberTrial("web-1", trial, null);
  expect(openTrial("web-1")).toEqual(trial);
});

test("a conversation is told of by its trial only if it begins with that", () => {
  const { trial } = ranked(2);
  rememberTrial("web-1", trial, null);
  rememberTrial("web-2", { ...trial, asked: { known: new Set(["c:0"]) } }, null);
  rememberTrial("web-3", { ...trial, asked: { known: new Set() } }, null);
  expect([...firstQuestions()]).toEqual([["web-3", "tea?"]]);
});
