import { ApiError } from "../../api/client";

/** Who has not answered by then hangs: what is shown would look like news for ever. */
const PATIENCE_MS = 15_000;

/** `answer` unless it is late. */
export async function inTime<T>(answer: Promise<T>): Promise<T> {
  let timer = 0;
  const late = new Promise<never>((_, reject) => {
    const told = new ApiError(0, "The server does not answer.", "unanswered");
    timer = window.setTimeout(() => reject(told), PATIENCE_MS);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    window.clearTimeout(timer);
  }
}
