import { useCallback, useContext, useEffect, useRef, useState } from "react";
import { ApiError } from "../../api/client";
import { SignedOut } from "./usePolled";

export interface Paged<T> {
  items: T[];
  hasMore: boolean;
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

/** A long list page by page; `load` gets the last item that is there. When `of` changes it is about something else. */
export function usePages<T>(load: (last: T | undefined) => Promise<Paged<T>>, of = ""): Pages<T> {
  const [state, setState] = useState<State<T>>(() => begun(of));
  const latest = useRef(load);
  latest.current = load;
  const items = useRef<T[]>([]);
  const asking = useRef<object>({});
  const signedOut = useContext(SignedOut);

  const ask = useCallback(
    async (before: T[]) => {
      const mine = (asking.current = {}); // a newer question takes the place of this one
      const told = (change: (had: State<T>) => State<T>) => mine === asking.current && setState(change);
      told((had) => ({ ...(had.of === of ? had : begun<T>(of)), loading: true, problem: null }));
      try {
        const page = await latest.current(before.at(-1));
        if (mine === asking.current) items.current = [...before, ...page.items];
        told(() => ({ of, items: items.current, hasMore: page.hasMore, loading: false, problem: null }));
      } catch (problem) {
        if (problem instanceof ApiError && problem.status === 401) signedOut();
        told((had) => ({ ...had, loading: false, problem }));
      }
    },
    [of, signedOut],
  );
  useEffect(() => {
    items.current = [];
    void ask([]);
    return () => {
      asking.current = {};
    };
  }, [ask]);

  const more = useCallback(() => ask(items.current), [ask]);
  const refresh = useCallback(() => ask([]), [ask]);
  return { ...(state.of === of ? state : begun<T>(of)), more, refresh };
}

const begun = <T>(of: string): State<T> => ({ of, items: [], hasMore: false, loading: true, problem: null });
