/** The answers that are being written in this tab, so that a refresh can go on with them. */
import type { Message } from "../api/types";
import { SessionKeep } from "./session_keep";

export interface PendingStream {
  conversationId: string;
  responseId: string;
  lastEventId: string;
  parent: string | null;
  messages: Message[];
}

const streams = new SessionKeep<PendingStream>("ratchet.streams");
// Written while text pours in: what is the same but for the event's number need not be written each time.
const EVERY_MS = 500;
let written = { responseId: "", at: 0 };

/** Where it cannot be kept, a refresh finds the answer when it is finished. */
export function rememberStream(stream: PendingStream): void {
  if (written.responseId === stream.responseId && Date.now() - written.at < EVERY_MS) return;
  written = { responseId: stream.responseId, at: Date.now() };
  streams.set(stream.conversationId, stream);
}

export const forgetStream = (conversationId: string): void => streams.forget(conversationId);

export const forgetStreams = (): void => streams.clear();

export const pendingStream = (conversationId: string): PendingStream | undefined => streams.get(conversationId);
