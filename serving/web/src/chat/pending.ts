/** The answers that are being written in this tab, so that a refresh can go on with them. */
import type { Message } from "../api/types";

export interface PendingStream {
  conversationId: string;
  responseId: string;
  lastEventId: string;
  parent: string | null;
  messages: Message[];
}

const KEY = "ratchet.streams";
// Written while text pours in: what is the same but for the event's number need not be written each time.
const EVERY_MS = 500;
let written = { responseId: "", at: 0 };

function all(): Record<string, PendingStream> {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "{}") as Record<string, PendingStream>;
  } catch {
    return {};
  }
}

function keep(streams: Record<string, PendingStream>): void {
  try {
    if (Object.keys(streams).length) sessionStorage.setItem(KEY, JSON.stringify(streams));
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage is full or forbidden: then a refresh finds the answer when it is finished.
  }
}

export function rememberStream(stream: PendingStream): void {
  if (written.responseId === stream.responseId && Date.now() - written.at < EVERY_MS) return;
  written = { responseId: stream.responseId, at: Date.now() };
  keep({ ...all(), [stream.conversationId]: stream });
}

export function forgetStream(conversationId: string): void {
  const { [conversationId]: _, ...others } = all();
  keep(others);
}

export const forgetStreams = (): void => keep({});

export const pendingStream = (conversationId: string): PendingStream | undefined => all()[conversationId];
