import { useCallback, useContext, useEffect, useRef, useState } from "react";
import { ApiError } from "../../api/client";
import { inTime } from "./in_time";
import { SignedOut } from "./usePolled";

export interface Paged<T> {
  items: T[];
  /** Where the next page begins, which need not be the last item; null when there is none. */
  next: string | null;
}

export interface Pages<T> extends Paged<T> {
  loading: boolean;
  problem: unknown;
  /** The next page, behind those that are there. */
  more: () => Promise<void>;
  /** The first page anew, in place of all. */
  refresh: () => Promise<void>;
}

interface State<T> extends Paged<T> {
  of: string;
  loading: boolean;
  problem: unknown;
}

type Load<T> = (after: string | undefined, signal: AbortSignal) => Promise<Paged<T>>;

/**
 * A long list page by page. When `of` changes it is about something else, and begins anew; what is asked for then, or
 * when the list is left, is given up.
 */
export function usePages<T>(load: Load<T>, of = ""): Pages<T> {
  const [state, setState] = useState<State<T>>(() => begun(of));
  const latest = useRef({ load, state });
  latest.current = { load, state };
  const asking = useRef(new AbortController());
  const signedOut = useContext(SignedOut);

  const ask = useCallback(
    async (before: Paged<T>) => {
      asking.current.abort(); // a newer question takes its place
      const mine = (asking.current = new AbortController());
      const { signal } = mine;
      setState((had) => ({ ...(had.of === of ? had : begun<T>(of)), loading: true, problem: null }));
      try {
        const { items, next } = await inTime(latest.current.load(before.next ?? undefined, signal));
        if (signal.aborted) return;
        setState({ of, items: [...before.items, ...items], next, loading: false, problem: null });
      } catch (problem) {
        if (signal.aborted) return;
        mine.abort(); // what hangs holds a connection
        if (problem instanceof ApiError && problem.status === 401) signedOut();
        setState((had) => ({ ...had, loading: false, problem }));
      }
    },
    [of, signedOut],
  );
  useEffect(() => {
    void ask(NOTHING);
    return () => asking.current.abort();
  }, [ask]);

  const more = useCallback(() => ask(latest.current.state), [ask]);
  const refresh = useCallback(() => ask(NOTHING), [ask]);
  return { ...(state.of === of ? state : begun<T>(of)), more, refresh };
}

const NOTHING = { items: [], next: null };

const begun = <T>(of: string): State<T> => ({ of, ...NOTHING, loading: true, problem: null });
