/** Judgements exactly as the gateway takes them, and the two routes beside them that the rating views need. */

import { ApiError, chats, feedback, newClientId, type Accepted, type KeptFeedback, type NewFeedback } from "./client";

export type PairWinner = "left" | "right" | "tie" | "both_bad";
export type LetterWinner = "A" | "B" | "C" | "D" | "E" | "F" | "G" | "H" | "tie" | "none";

/** Beside a judgement of several answers: when they were shown and decided on (seconds since 1970), in which order. */
export interface Circumstances {
  shown_at?: number;
  answered_at?: number;
  presented_order?: string[];
}

export type Said =
  | { type: "rating"; completion_id: string; value: 1 | -1; reasons?: string[]; comment?: string }
  | { type: "demonstration"; completion_id: string; content: string; based_on_edit: boolean }
  | { type: "flag"; completion_id: string; reasons?: string[]; comment?: string }
  | ({ type: "comparison"; comparison_id: string; winner: PairWinner | LetterWinner } & Circumstances)
  | ({ type: "comparison"; left: string; right: string; winner: PairWinner } & Circumstances)
  | ({
      type: "ranking";
      comparison_id?: string;
      candidates?: string[];
      ranking: string[][];
      partial: boolean;
      none_acceptable: boolean;
    } & Circumstances);

export const MAX_TEXT = 32_768;

/** Answers only once the ledger has it. The same `clientId` again adds nothing. */
export const give = (said: Said, clientId: string): Promise<Accepted> =>
  feedback.give({ ...said, client_id: clientId } as NewFeedback);

/** Taking back what is taken back already changes nothing. */
export const takeBack = (id: string): Promise<unknown> => feedback.takeBack(id);

/** Whether a request that failed may have been carried out all the same. */
export const uncertain = (error: unknown): boolean =>
  !(error instanceof ApiError) || error.status === 0 || error.status >= 500;

/** All of one's judgements that stand, oldest first, page by page. */
export async function* said(): AsyncGenerator<KeptFeedback[]> {
  for (let after: string | undefined; ;) {
    const page = await feedback.list({ limit: 100, ...(after ? { after } : {}) });
    yield page.data;
    if (!page.has_more || !page.last_id) return;
    after = page.last_id;
  }
}

/** Those that stand on one answer, by type; comparisons and rankings of it among them. */
export async function saidOf(completionId: string): Promise<KeptFeedback[]> {
  return (await feedback.list({ completion_id: completionId, limit: 100 })).data;
}

/** Ends an answer, of chat or comparison, that is being written; one that has ended by itself is no failure. */
export async function stop(responseId: string): Promise<void> {
  await chats.cancel(responseId).catch((error: unknown) => {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
  });
}

export { newClientId };
