/** What the gateway's public API says, as far as the page reads it (see GET /openapi.json). */

export type Role = "user" | "rater" | "operator" | "admin";

export interface Session {
  object: "session";
  role: Role;
  name: string;
  /** The pseudonym that their judgements carry. */
  rater: string;
  /** They are the only user of this machine, whom it lets in for nothing: there is nothing to sign out of. */
  single_user: boolean;
  expires: number | null;
}

export interface Message {
  role: "system" | "developer" | "user" | "assistant" | "tool" | "function";
  content: string | null;
}

/** Beside OpenAI's fields: in the first chunk of a stream and in those that finish a choice. */
export interface RatchetFacts {
  policy_version?: number | null;
  release?: number | null;
  arm?: "stable" | "candidate" | null;
  conversation_id: string;
  completion_ids: string[];
  comparison_id?: string;
  stored?: boolean | null;
  partial?: boolean;
}

export interface ChatRequest {
  model: string;
  messages: Message[];
  n?: number;
  store?: boolean;
  max_tokens?: number;
  temperature?: number;
  metadata?: Record<string, string>;
}

/** `k` in place of `n`; "auto" sets the stable policy against a release's candidate. */
export interface ComparisonRequest extends Omit<ChatRequest, "n" | "model"> {
  model: string | string[];
  k: number;
}

export interface ChatChunk {
  id: string;
  object: "chat.completion.chunk";
  model: string;
  choices: { index: number; delta: { content?: string | null; role?: string }; finish_reason: string | null }[];
  usage?: { prompt_tokens: number; completion_tokens: number; total_tokens: number } | null;
  ratchet?: RatchetFacts;
}

/** An answer as it was kept. */
export interface StoredChat {
  object: "chat.completion";
  id: string;
  choices: { index: number; message: Message; finish_reason: string }[];
  ratchet: RatchetFacts;
}

export interface Page<T> {
  object: "list";
  data: T[];
  first_id: string | null;
  last_id: string | null;
  has_more: boolean;
}

export interface Conversation {
  object: "conversation";
  id: string;
  title: string;
  allow_training: boolean;
  created: number;
  updated: number;
  head: string | null;
}

export interface DeletedConversation {
  object: "conversation.deleted";
  id: string;
  deleted: true;
  /** Open rounds that had collected some of it, and collect again without. */
  restarted: number[];
  /** Those that had done so twice, and go on with it. */
  learning: number[];
}

/** One answer in the tree of a conversation. */
export interface TreeNode {
  completion_id: string;
  response_id: string;
  choice: number;
  parent_id: string | null;
  new_messages: Message[];
  content: string;
  policy_version: number | null;
  created: number;
  finish_reason: string;
  partial: boolean;
  siblings: string[];
}

export interface Tree {
  object: "conversation.tree";
  id: string;
  head: string | null;
  nodes: TreeNode[];
}

interface About {
  completion_id: string;
}

export type Judgement =
  | (About & { type: "rating"; value: number; reasons?: string[]; comment?: string; metric?: string })
  | (About & { type: "demonstration"; content: string; based_on_edit?: boolean })
  | (About & { type: "flag"; reasons?: string[] })
  | (About & { type: "comment"; content: string })
  | { type: "comparison"; comparison_id: string; winner: string; reasons?: string[]; comment?: string }
  | { type: "comparison"; left: string; right: string; winner: string; reasons?: string[]; comment?: string }
  | {
      type: "ranking";
      comparison_id?: string;
      candidates?: string[];
      ranking: string | string[][];
      partial?: boolean;
      none_acceptable?: boolean;
      reasons?: string[];
      comment?: string;
    };

/** `client_id` makes a repetition safe: it adds nothing. */
export type NewFeedback = Judgement & { client_id?: string; dry_run?: boolean };

export interface Accepted {
  object: "feedback";
  id: string;
  type: Judgement["type"];
  created: number;
  revision: number;
  status: "accepted" | "retracted" | "replaced" | "valid";
  split: string;
  continue_from?: string;
  reveal?: Record<string, string>;
}

/** A judgement as its author sees it later. */
export interface KeptFeedback {
  object: "feedback";
  id: string;
  type: Judgement["type"];
  judgement: Record<string, unknown> & { type: Judgement["type"] };
  created: number;
  revision: number;
  replaces: string | null;
  status: "accepted" | "retracted" | "replaced";
  /** The question whose answers it judges, and in which of one's conversations; null where they are not kept. */
  about?: { conversation_id: string | null; question: string } | null;
  /** The policies that were trained on it. */
  learned: string[];
  [field: string]: unknown;
}

export interface ShownComparison {
  object: "comparison";
  id: string;
  created: number;
  conversation_id: string;
  completion_ids: string[];
  messages: Message[];
  answers: { completion_id: string; message: Message; partial: boolean }[];
  votes: string[];
  reveal: Record<string, string> | null;
}

export interface Me {
  object: "me";
  id: string;
  name: string;
  role: Role;
  rater: string;
  usage: { day: string; requests: number; tokens: number; feedback: number; streams: number } | null;
}

export interface DeletedMe {
  object: "me.deleted";
  deleted: true;
  conversations: number;
  completions: number;
  feedback: number;
  learned: { rounds: number[]; policies: string[] };
  restarted: number[];
}
