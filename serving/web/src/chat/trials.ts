/** The ways into a trial: from a question, or from answers that are there. */
import type { Message } from "../api/client";
import type { ChatStore } from "./store";
import type { Trial } from "./Trial";
import type { Turn } from "./tree";

/** `k` new answers to a question, blind: of a release's two sides if there is one. */
export function trialOf(store: ChatStore, text: string, k: number): Trial {
  const messages: Message[] = [{ role: "user", content: text }];
  const parent = store.state.head;
  const { model: _, ...request } = store.request(parent, messages);
  const source = { kind: "blind" as const, request: { ...request, model: "auto", k } };
  const asked = { known: new Set(store.state.nodes.keys()) };
  return { parent, messages, way: { kind: k === 2 ? "compare" : "rank", source }, asked };
}

/** Another answer beside the one that is shown; drawn which is left: people like one side better. */
export function besideOf(store: ChatStore, { node }: Turn): Trial {
  const { parent_id: parent, new_messages: messages } = node;
  const existing = { completionId: node.completion_id, text: node.content, policyVersion: node.policy_version };
  const request = store.request(parent, messages);
  const source = { kind: "another" as const, existing, request, newFirst: Math.random() < 0.5 };
  return { parent, messages, way: { kind: "compare", source }, asked: null };
}

const MOST = 8;

/** The answers that there are to a question, the newest of them if they are too many; drawn which comes first. */
export function rankingOf(store: ChatStore, { node, answers }: Turn): Trial {
  const known = shuffled(answers.ids.slice(-MOST)).map((id) => {
    const { content, policy_version: version } = store.state.nodes.get(id)!;
    return { completionId: id, text: content, policy: version === null ? null : `policy-v${version}` };
  });
  const way = { kind: "rank-known" as const, answers: known };
  return { parent: node.parent_id, messages: node.new_messages, way, asked: null };
}

/** Every order is as likely as any other. */
function shuffled(ids: readonly string[]): string[] {
  const mixed = [...ids];
  for (let last = mixed.length - 1; last > 0; last--) {
    const drawn = Math.floor(Math.random() * (last + 1));
    [mixed[last], mixed[drawn]] = [mixed[drawn]!, mixed[last]!];
  }
  return mixed;
}
