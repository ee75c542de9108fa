/** A conversation's answers as a tree: which branch is shown, and what else there is beside each turn of it. */
import type { Message, TreeNode } from "../api/types";

/** A place among alternatives: `at` counts from 0. */
export interface Place {
  ids: string[];
  at: number;
}

/** A question and the answer to it that is shown. */
export interface Turn {
  node: TreeNode;
  /** The answers to the same messages. */
  answers: Place;
  /** Of each differently worded question after the same answer the answer last given. */
  prompts: Place;
}

export type Nodes = ReadonlyMap<string, TreeNode>;

export function indexed(nodes: readonly TreeNode[]): Nodes {
  return new Map(nodes.map((node) => [node.completion_id, node]));
}

/** From the first question to the answer `head`; empty where there is no such answer. */
export function branchTo(nodes: Nodes, head: string | null): TreeNode[] {
  const branch: TreeNode[] = [];
  const seen = new Set<string>();
  let node = head === null ? undefined : nodes.get(head);
  while (node && !seen.has(node.completion_id)) {
    seen.add(node.completion_id);
    branch.unshift(node);
    node = node.parent_id === null ? undefined : nodes.get(node.parent_id);
  }
  return branch;
}

/** What to send so that the next answer goes on from `head`. */
export function messagesTo(nodes: Nodes, head: string | null): Message[] {
  return branchTo(nodes, head).flatMap((node) => [
    ...node.new_messages,
    { role: "assistant" as const, content: node.content },
  ]);
}

export function turnsTo(nodes: Nodes, head: string | null): Turn[] {
  return branchTo(nodes, head).map((node) => {
    const beside = [...nodes.values()].filter((each) => each.parent_id === node.parent_id);
    const groups = new Map<string, string[]>();
    for (const each of beside) {
      const key = wording(each);
      groups.set(key, [...(groups.get(key) ?? []), each.completion_id]);
    }
    const answers = groups.get(wording(node)) ?? [node.completion_id];
    const prompts = [...groups.values()].map((ids) => (ids === answers ? node.completion_id : ids.at(-1)!));
    return {
      node,
      answers: { ids: answers, at: answers.indexOf(node.completion_id) },
      prompts: { ids: prompts, at: prompts.indexOf(node.completion_id) },
    };
  });
}

const wording = (node: TreeNode): string => JSON.stringify(node.new_messages.map(({ role, content }) => [role, content]));

/** Where a branch through `id` was last gone on with: its newest descendant without answers after it. */
export function newestEnd(nodes: Nodes, id: string): string {
  const seen = new Set<string>();
  let end = id;
  for (;;) {
    seen.add(end);
    const next = [...nodes.values()].filter((each) => each.parent_id === end && !seen.has(each.completion_id)).at(-1);
    if (!next) return end;
    end = next.completion_id;
  }
}

/** The person's words in a turn; system prompts and tools' results are not shown as such. */
export const asked = (node: TreeNode): string => words(node.new_messages);

export const words = (messages: { role: string; content: string | null }[]): string =>
  messages.filter((message) => message.role === "user").map((message) => message.content ?? "").join("\n\n");
