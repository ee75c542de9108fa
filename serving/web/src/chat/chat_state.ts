/** What there is of one conversation on the page. */
import { conversations, type Conversation, type Message, type RatchetFacts, type TreeNode } from "../api/client";
import { indexed, type Nodes } from "./tree";

export interface Asked {
  parent: string | null;
  messages: Message[];
  /** The words of the composer that it is. */
  draft: string | null;
  /** The answer whose question it is in other words. */
  edited: string | null;
}

/** An answer that is being written: no node yet. */
export interface Writing extends Asked {
  responseId: string | null;
  text: string;
  stopping: boolean;
  reconnecting: boolean;
}

export interface Failure {
  error: unknown;
  /** What was asked and not answered, to be tried again. */
  retry: Asked | null;
  /** The words of the composer that were not taken. */
  draft: string | null;
  /** What was seen of an answer that broke off, and is kept nowhere else. */
  shown?: string;
}

export interface ChatState {
  id: string;
  /** "new" until something was asked, "missing" where there is no such conversation. */
  status: "new" | "loading" | "ready" | "missing";
  title: string;
  nodes: Nodes;
  head: string | null;
  writing: Writing | null;
  failure: Failure | null;
  allowTraining: boolean;
  temporary: boolean;
}

/** As it is before anything was asked, or loaded. */
export function begun(id: string, known: boolean): ChatState {
  return {
    id, status: known ? "loading" : "new", title: "", nodes: new Map(), head: null, writing: null, failure: null,
    allowTraining: true, temporary: false,
  };
}

/** What its card says of it. */
export const facts = (card: Conversation): Pick<ChatState, "title" | "allowTraining"> => ({
  title: card.title,
  allowTraining: card.allow_training,
});

/** As the server has it. */
export async function toldOf(id: string): Promise<Pick<ChatState, "title" | "allowTraining" | "status" | "nodes" | "head">> {
  const [card, tree] = await Promise.all([conversations.get(id), conversations.tree(id)]);
  const nodes = indexed(tree.nodes);
  const head = tree.head !== null && nodes.has(tree.head) ? tree.head : (tree.nodes.at(-1)?.completion_id ?? null);
  return { ...facts(card), status: "ready", nodes, head };
}

/** What a stream has told so far. */
export interface Seen {
  facts: RatchetFacts | null;
  finish: string | null;
  responseId: string | null;
  lastId: string;
}

/** The answer that was written, as the server will list it. */
export function written(id: string, text: string, seen: Seen, { parent, messages }: Asked): TreeNode {
  return {
    completion_id: id, response_id: seen.responseId ?? id, choice: 0, parent_id: parent, new_messages: messages,
    content: text, policy_version: seen.facts?.policy_version ?? null, created: Math.floor(Date.now() / 1000),
    finish_reason: seen.finish ?? "stop", partial: seen.facts?.partial ?? false, siblings: [],
  };
}
