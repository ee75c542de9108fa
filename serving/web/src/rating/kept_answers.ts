/** Answers whose stream is gone, as the gateway has kept them. */
import { chats, comparisons, type ChatChunk, type RatchetFacts, type ShownComparison } from "../api/client";

/** As if they had just been written, each in one piece. Throws ApiError 404 where nothing of them was kept. */
export async function keptChunks(kind: "blind" | "another", responseId: string): Promise<ChatChunk[]> {
  if (kind === "another") {
    const { choices, ratchet } = await chats.get(responseId);
    return choices.map(({ index, message }) => whole(responseId, index, message.content, ratchet));
  }
  return chunksOf(await comparisons.get(responseId));
}

/** Of a comparison that was laid out. */
export function chunksOf({ id: responseId, answers, completion_ids, conversation_id }: ShownComparison): ChatChunk[] {
  return completion_ids.map((id, index) => {
    const answer = answers.find(({ completion_id }) => completion_id === id);
    const facts = { conversation_id, completion_ids, comparison_id: responseId, stored: true };
    return whole(responseId, index, answer?.message.content ?? null, { ...facts, partial: answer?.partial ?? true });
  });
}

function whole(id: string, index: number, content: string | null, ratchet: RatchetFacts): ChatChunk {
  const choices = [{ index, delta: { content }, finish_reason: "stop" }];
  return { id, object: "chat.completion.chunk", model: "", choices, ratchet };
}
