/** The trials that wait for a judgement in this tab: whoever refreshes it, or comes back to the chat, finds them. */
import { stop } from "../api/feedback";
import type { Ranking } from "../rating";
import { SessionKeep } from "./session_keep";
import { words } from "./tree";
import type { Trial } from "./Trial";

interface Kept extends Omit<Trial, "asked"> {
  known: string[] | null;
  /** Of its answers, as far as it has come. */
  ranking?: Ranking;
}

const trials = new SessionKeep<Kept>("ratchet.trials");

/** `responseId` names the answers that are new in it. Whether it could be kept. */
export function rememberTrial(conversationId: string, trial: Trial, responseId: string | null): boolean {
  const { asked, way, ...rest } = trial;
  const named = way.kind === "rank-known" || !responseId ? way : { ...way, source: { ...way.source, responseId } };
  const { ranking } = trials.get(conversationId) ?? {};
  return trials.set(conversationId, {
    ...rest,
    way: named,
    known: asked && [...asked.known],
    ...(ranking && { ranking }),
  });
}

export function openTrial(conversationId: string): Trial | null {
  const kept = trials.get(conversationId);
  if (!kept) return null;
  const { known, ranking: _, ...trial } = kept;
  return { ...trial, asked: known && { known: new Set(known) } };
}

/** The first questions of conversations that begin with a judgement, by conversation. */
export function firstQuestions(): ReadonlyMap<string, string> {
  const first = Object.entries(trials.all()).filter(([, { known }]) => known?.length === 0);
  return new Map(first.map(([id, { messages }]) => [id, words(messages)]));
}

/** With the trial that it is of, as long as that waits. */
export function keepRanking(conversationId: string, ranking: Ranking): void {
  const kept = trials.get(conversationId);
  if (kept) trials.set(conversationId, { ...kept, ranking });
}

export const begunRanking = (conversationId: string): Ranking | null => trials.get(conversationId)?.ranking ?? null;

/** Nobody wants them any more: when this is done, what was shown of them is part of the conversation. */
export async function leaveTrial(conversationId: string): Promise<void> {
  const way = openTrial(conversationId)?.way;
  forgetTrial(conversationId);
  if (!way || way.kind === "rank-known" || !way.source.responseId) return;
  await stop(way.source.responseId).catch(() => undefined);
}

export const forgetTrial = (conversationId: string): void => trials.forget(conversationId);

export const forgetTrials = (): void => trials.clear();
