/** An answer's events over connections that break off. */
import { ApiError, chats, type ServerEvent } from "./client";

interface Following {
  signal: AbortSignal;
  /** Known already where an answer is resumed from its beginning. */
  responseId?: string | null;
  onLost?: () => void;
}

const MOST_RESUMES = 6;

/**
 * The events of `first`, then those of resumed streams after the last one that was seen, until [DONE]. It waits longer
 * before each resume that brings nothing, and throws what the last of them failed with. What the gateway refuses for
 * good, or before the answer has a name, is thrown at once.
 */
export async function* unbroken(
  first: AsyncIterable<ServerEvent>,
  { signal, responseId = null, onLost = () => undefined }: Following,
): AsyncGenerator<ServerEvent> {
  let events = first;
  let name = responseId;
  let lastId = "0";
  for (let attempt = 0; ; attempt++) {
    try {
      for await (const event of events) {
        attempt = 0;
        if (event.id !== null && event.data !== "[DONE]") {
          lastId = event.id;
          name ??= (JSON.parse(event.data) as { id: string }).id;
        }
        yield event;
        if (event.data === "[DONE]") return;
      }
      throw new ApiError(0, "The connection broke off.", "stream_broken");
    } catch (error) {
      const lost = error instanceof ApiError && error.passing;
      if (!lost || name === null || attempt >= MOST_RESUMES || signal.aborted) throw error;
    }
    onLost();
    await pause(Math.min(8000, 500 * 2 ** attempt), signal);
    events = chats.resume(name, lastId, signal);
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
