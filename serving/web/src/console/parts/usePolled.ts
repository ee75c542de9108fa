import { createContext, useCallback, useContext, useEffect, useRef, useState } from "react";
import { ApiError } from "../../api/client";
import { inTime } from "./in_time";

/** What to do once the gateway no longer knows who asks. */
export const SignedOut = createContext<() => void>(() => undefined);

export interface Polled<T> {
  /** The newest there is: that of before while the server is away. */
  value: T | undefined;
  /** When that was the newest, in seconds since 1970; null without one. */
  at: number | null;
  /** Why the last try failed. */
  problem: unknown;
  /** Asks at once, and again after the usual time. */
  refresh: () => Promise<void>;
}

const SOON_MS = 1000;
const SLOWEST_MS = 30_000;

/**
 * Asks again `everyMs` after each answer, or only once for null. Where that fails and may soon succeed it is tried again
 * soon, and then less and less often; what was wrong with the question is not asked again for null. Not at all while the
 * page is hidden. When `of` changes it is about something else, and begins anew; `load` may be another each time.
 */
export function usePolled<T>(load: (signal: AbortSignal) => Promise<T>, everyMs: number | null, of = ""): Polled<T> {
  const [state, setState] = useState<{ of: string; value?: T; at?: number; problem: unknown }>({ of, problem: null });
  const latest = useRef({ load, everyMs });
  latest.current = { load, everyMs };
  const ask = useRef<() => Promise<void>>(async () => undefined);
  const signedOut = useContext(SignedOut);

  useEffect(() => {
    const polling = new Polling(
      (signal) => latest.current.load(signal),
      () => latest.current.everyMs,
      (value) => setState({ of, value, at: Date.now() / 1000, problem: null }),
      (problem) => {
        if (problem instanceof ApiError && problem.status === 401) signedOut();
        setState((before) => (before.of === of ? { ...before, problem } : { of, problem }));
      },
    );
    ask.current = () => polling.ask();
    void polling.ask();
    const seen = () => document.hidden || void polling.ask();
    document.addEventListener("visibilitychange", seen);
    return () => {
      document.removeEventListener("visibilitychange", seen);
      polling.end();
    };
  }, [of, everyMs === null, signedOut]);

  const refresh = useCallback(() => ask.current(), []);
  const { value, at = null, problem } = state.of === of ? state : { value: undefined, problem: null };
  return { value, at, problem, refresh };
}

/** One question at a time: a newer one takes the place of one under way. */
class Polling<T> {
  private timer: number | undefined;
  private asking = new AbortController();
  private failures = 0;

  constructor(
    private readonly load: (signal: AbortSignal) => Promise<T>,
    private readonly everyMs: () => number | null,
    private readonly onValue: (value: T) => void,
    private readonly onProblem: (problem: unknown) => void,
  ) {}

  async ask(): Promise<void> {
    this.end();
    const asking = (this.asking = new AbortController());
    const { signal } = asking;
    let wait = this.everyMs();
    try {
      const value = await inTime(this.load(signal));
      if (signal.aborted) return;
      this.failures = 0;
      this.onValue(value);
    } catch (problem) {
      if (signal.aborted) return;
      asking.abort(); // what hangs holds a connection
      this.failures += 1;
      this.onProblem(problem);
      if (wait !== null || (problem instanceof ApiError && problem.passing)) wait = this.pause();
    }
    if (wait === null) return;
    this.timer = window.setTimeout(() => document.hidden || void this.ask(), wait);
  }

  private pause(): number {
    return Math.min(SOON_MS * 2 ** this.failures, SLOWEST_MS);
  }

  end(): void {
    window.clearTimeout(this.timer);
    this.asking.abort();
  }
}
