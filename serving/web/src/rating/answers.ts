/** Several answers as they are written side by side; a chunk's choice index is its slot. */

import type { ChatChunk } from "../api/client";

export interface Slot {
  text: string;
  finished: boolean;
  /** It was stopped before its end. */
  partial: boolean;
}

export interface Answers {
  responseId: string | null;
  conversationId: string | null;
  comparisonId: string | null;
  completionIds: readonly string[];
  slots: readonly Slot[];
  /** Who wrote each, as far as it is told before a vote. */
  policies: readonly (string | null)[];
  stored: boolean;
}

export interface Existing {
  completionId: string;
  text: string;
  policyVersion?: number | null;
}

const EMPTY: Slot = { text: "", finished: false, partial: false };
const named = (version: number | null | undefined): string | null => (version == null ? null : `policy-v${version}`);

/** Nothing is written yet but what was there before, which has the first slots. */
export function begun(count: number, existing: readonly Existing[] = []): Answers {
  const old = existing.map(({ text }) => ({ text, finished: true, partial: false }));
  return {
    responseId: null,
    conversationId: null,
    comparisonId: null,
    completionIds: existing.map(({ completionId }) => completionId),
    slots: [...old, ...Array.from({ length: count }, () => EMPTY)],
    policies: existing.map(({ policyVersion }) => named(policyVersion)),
    stored: true,
  };
}

/** With what a chunk adds; its choices follow the `before` slots that were there already. */
export function withChunk(answers: Answers, chunk: ChatChunk, before = 0): Answers {
  const slots = [...answers.slots];
  for (const { index, delta, finish_reason } of chunk.choices) {
    const slot = slots[before + index];
    if (!slot) continue;
    slots[before + index] = {
      text: slot.text + (delta.content ?? ""),
      finished: slot.finished || finish_reason !== null,
      partial: slot.partial || (finish_reason !== null && chunk.ratchet?.partial === true),
    };
  }
  return { ...answers, ...facts(answers, chunk, before), responseId: chunk.id, slots };
}

function facts(answers: Answers, { ratchet }: ChatChunk, before: number): Partial<Answers> {
  if (!ratchet) return {};
  const policy = named(ratchet.policy_version);
  return {
    conversationId: ratchet.conversation_id,
    comparisonId: ratchet.comparison_id ?? null,
    completionIds: [...answers.completionIds.slice(0, before), ...ratchet.completion_ids],
    policies: [...answers.policies.slice(0, before), ...ratchet.completion_ids.map(() => policy)],
    stored: answers.stored && ratchet.stored !== false,
  };
}

/** A pair with its sides swapped; the answers have no names until both do. */
export const mirrored = (answers: Answers): Answers => ({
  ...answers,
  slots: answers.slots.toReversed(),
  completionIds: answers.completionIds.length === answers.slots.length ? answers.completionIds.toReversed() : [],
  policies: answers.policies.length === answers.slots.length ? answers.policies.toReversed() : [],
});

/** The gateway takes no vote on an answer that shows nothing, nor keeps one that was cut so early. */
export const begunIn = ({ text, finished, partial }: Slot): boolean => text !== "" || (finished && !partial);

/** Each has begun, and is kept. */
export const votable = ({ slots, completionIds, stored }: Answers): boolean =>
  stored && completionIds.length === slots.length && slots.every(begunIn);

export const finished = ({ slots }: Answers): boolean => slots.every((slot) => slot.finished);

export const letter = (slot: number): string => String.fromCharCode("A".charCodeAt(0) + slot);
