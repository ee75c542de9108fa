import { expect, test } from "vitest";
import type { TreeNode } from "../api/types";
import { branchTo, indexed, messagesTo, newestEnd, turnsTo } from "./tree";

function node(id: string, parent: string | null, question: string): TreeNode {
  return {
    completion_id: id, response_id: id, choice: 0, parent_id: parent, content: `answer ${id}`,
    new_messages: [{ role: "user", content: question }], policy_version: 1, created: 0, finish_reason: "stop",
    partial: false, siblings: [],
  };
}

// tea? -> a, regenerated b; after a: coffee? -> c, edited to green? -> d and e, and on from d: milk? -> f
const NODES = indexed([
  node("a", null, "tea?"), node("b", null, "tea?"), node("c", "a", "coffee?"), node("d", "a", "green?"),
  node("e", "a", "green?"), node("f", "d", "milk?"),
]);

test("a branch leads from the first question to its head", () => {
  expect(branchTo(NODES, "f").map((each) => each.completion_id)).toEqual(["a", "d", "f"]);
  expect(branchTo(NODES, null)).toEqual([]);
  expect(branchTo(NODES, "gone")).toEqual([]);
});

test("answers to the same words are alternatives of the answer, other words those of the question", () => {
  const [tea, green, milk] = turnsTo(NODES, "f");
  expect(tea!.answers).toEqual({ ids: ["a", "b"], at: 0 });
  expect(tea!.prompts).toEqual({ ids: ["a"], at: 0 });
  expect(green!.answers).toEqual({ ids: ["d", "e"], at: 0 });
  expect(green!.prompts).toEqual({ ids: ["c", "d"], at: 1 });
  expect(milk!.answers.ids).toEqual(["f"]);
});

test("a question worded otherwise is represented by the answer last given to it", () => {
  expect(turnsTo(NODES, "c")[1]!.prompts).toEqual({ ids: ["c", "e"], at: 0 });
});

test("switching goes to where the branch was last gone on with", () => {
  expect(newestEnd(NODES, "d")).toBe("f");
  expect(newestEnd(NODES, "a")).toBe("e");
  expect(newestEnd(NODES, "b")).toBe("b");
});

test("what is sent repeats the branch word for word", () => {
  expect(messagesTo(NODES, "c").map((message) => [message.role, message.content])).toEqual([
    ["user", "tea?"], ["assistant", "answer a"], ["user", "coffee?"], ["assistant", "answer c"],
  ]);
});

test("a parent that goes round in a circle ends", () => {
  const loop = indexed([node("x", "y", "?"), node("y", "x", "?")]);
  expect(branchTo(loop, "x")).toHaveLength(2);
  expect(newestEnd(loop, "x")).toBe("y");
});
