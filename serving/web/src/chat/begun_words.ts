/** What somebody has begun to say of answers, or to ask in other words, in this tab: no refresh may lose it. */
import type { Report } from "../rating";
import { SessionKeep } from "./session_keep";

export interface Words {
  /** What was asked, in other words. */
  question?: string;
  correction?: string;
  comment?: string;
  /** `open` while its dialog is. */
  report?: Report & { open: boolean };
}

const begun = new SessionKeep<Record<string, Words>>("ratchet.words");

export const begunWords = (conversationId: string, answer: string): Words => begun.get(conversationId)?.[answer] ?? {};

/** Null: given, or not wanted any more. */
export function keepWords<What extends keyof Words>(
  conversationId: string,
  answer: string,
  what: What,
  said: Required<Words>[What] | null,
): void {
  const { [answer]: had = {}, ...others } = begun.get(conversationId) ?? {};
  if ((had[what] ?? null) === said) return;
  const { [what]: _, ...rest } = had;
  const words = said === null ? rest : { ...rest, [what]: said };
  const all = Object.keys(words).length ? { ...others, [answer]: words } : others;
  if (Object.keys(all).length) begun.set(conversationId, all);
  else begun.forget(conversationId);
}

/** The answer that was being corrected, or its question edited: the last of them. */
export function editedIn(conversationId: string, what: "correction" | "question"): string | null {
  const answers = Object.entries(begun.get(conversationId) ?? {});
  return answers.findLast(([, words]) => words[what] !== undefined)?.[0] ?? null;
}

export const forgetWords = (conversationId: string): void => begun.forget(conversationId);

export const forgetAllWords = (): void => begun.clear();
