import { useEffect, useState } from "react";
import { ApiError, duration, explain } from "../api/client";
import type { Failure } from "./chat_state";
import type { ChatStore } from "./store";

/** What went wrong and what can be done; a retry waits for as long as the server asked. */
export function Banner({ failure, store }: { failure: Failure; store: ChatStore }) {
  const left = useCountdown(failure.error);
  // A question that was edited stands in its editor again, to be sent from there.
  const again = failure.retry?.edited === null || store.state.status === "loading";
  return (
    <div className="banner" role="alert">
      <p>{explain(failure.error)}</p>
      <div>
        {again && (
          <button type="button" disabled={left > 0} onClick={() => void store.retry()}>
            {left > 0 ? `Try again in ${duration(left)}` : "Try again"}
          </button>
        )}
        <button type="button" className="link" onClick={() => store.dismiss()}>
          Dismiss
        </button>
      </div>
    </div>
  );
}

function useCountdown(error: unknown): number {
  const wait = error instanceof ApiError ? (error.retryAfter ?? 0) : 0;
  const [left, setLeft] = useState(wait);
  useEffect(() => {
    const until = Date.now() + wait * 1000;
    setLeft(wait);
    const timer = setInterval(() => setLeft(Math.max(0, Math.ceil((until - Date.now()) / 1000))), 500);
    return () => clearInterval(timer);
  }, [error, wait]);
  return left;
}
