import { expect, test } from "vitest";
import type { Tree, TreeNode } from "../api/client";
import { markdownOf } from "./exporting";

function node(id: string, parent: string | null, question: string, more: Partial<TreeNode> = {}): TreeNode {
  return {
    completion_id: id, response_id: id, choice: 0, parent_id: parent, content: `It is ${id}.`,
    new_messages: [{ role: "user", content: question }], policy_version: 3, created: 0, finish_reason: "stop",
    partial: false, siblings: [], ...more,
  };
}

// tea? -> green, regenerated black; after black: milk?, which was stopped
const NODES = [
  node("green", null, "tea?"),
  node("black", null, "tea?", { policy_version: null }),
  node("white", "black", "And *milk*?", { partial: true }),
];
const TREE: Tree = { object: "conversation.tree", id: "web-1", head: "white", nodes: NODES };

test("the branch that is shown is Markdown, with who wrote what as it stands", () => {
  expect(markdownOf("Tea", TREE)).toBe(
    "# Tea\n\n## You\n\ntea?\n\n## Answer\n\nIt is black.\n\n" +
      "## You\n\nAnd *milk*?\n\n## policy-v3\n\nIt is white.\n\n*(stopped)*\n",
  );
  expect(markdownOf("Tea", { ...TREE, head: "green" })).toBe("# Tea\n\n## You\n\ntea?\n\n## policy-v3\n\nIt is green.\n");
});

test.each([
  ["So:\n\n```python\nprint(", "\n```"],
  ["```", "\n```"],
  ["~~~~\n```\n~~~\n", "\n~~~~"],
  ["```\nx\n```", ""],
])("code in which an answer was stopped ends with it: %j", (content, end) => {
  const nodes = [node("code", null, "code?", { content, partial: true })];
  expect(markdownOf("Code", { ...TREE, head: "code", nodes })).toContain(`\n\n${content}${end}\n\n*(stopped)*`);
});
