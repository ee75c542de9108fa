import { useCallback, useEffect, useRef, useState } from "react";
import { ApiError, conversations, type Conversation } from "../api/client";
import { roundsWords } from "../rating";
import { useReturn } from "./useReturn";

/** A list of more is nothing that anybody looks through. */
const MOST_FOUND = 100;

export interface Conversations {
  items: Conversation[];
  hasMore: boolean;
  /** Of all conversations those that were searched for last, as far as the server has told. */
  found: Conversation[];
  search: (words: string, signal: AbortSignal) => Promise<boolean>;
  problem: unknown;
  more: () => Promise<boolean>;
  refresh: () => Promise<boolean>;
  rename: (id: string, title: string) => Promise<boolean>;
  /** Whether it is gone. */
  remove: (id: string) => Promise<boolean>;
  /** What the last removal did to rounds that are under way, until somebody has read it. */
  aftermath: string[];
  haveRead: () => void;
  /** Work whose failure is shown above the list; whether it was done. */
  guarded: (work: () => Promise<void>) => Promise<boolean>;
}

export function useConversations(onSignedOut: () => void): Conversations {
  const [items, setItems] = useState<Conversation[]>([]);
  const [found, setFound] = useState<Conversation[]>([]);
  const [hasMore, setHasMore] = useState(false);
  const [problem, setProblem] = useState<unknown>(null);
  const [aftermath, setAftermath] = useState<string[]>([]);
  const loaded = useRef<Conversation[]>([]);
  loaded.current = items;
  /** Where the list ends, which holds also once the conversation there is used elsewhere or gone. */
  const end = useRef<string | null>(null);
  const asked = useRef(0);
  const told = useRef(0);

  const guarded = useCallback(
    async (work: () => Promise<void>): Promise<boolean> => {
      try {
        await work();
        setProblem(null);
        return true;
      } catch (error) {
        if (error instanceof ApiError && error.status === 401) onSignedOut();
        else setProblem(error);
        return false;
      }
    },
    [onSignedOut],
  );

  const refresh = useCallback(
    () =>
      guarded(async () => {
        const turn = ++asked.current;
        const page = await conversations.list();
        // Of two asked for at once the later one may be told first: the other knows less.
        if (turn < told.current) return;
        told.current = turn;
        if (loaded.current.length <= page.data.length || !page.has_more) end.current = page.last_id;
        const fresh = new Set(page.data.map((each) => each.id));
        // Those used last come first: what was loaded further down stays where it was.
        setItems((before) => [...page.data, ...(page.has_more ? before.filter((each) => !fresh.has(each.id)) : [])]);
        setHasMore((before) => (loaded.current.length > page.data.length ? before : page.has_more));
      }),
    [guarded],
  );

  const more = useCallback(
    () =>
      guarded(async () => {
        const page = await conversations.list(end.current ?? undefined);
        end.current = page.last_id ?? end.current;
        const known = new Set(loaded.current.map((each) => each.id));
        setItems((before) => [...before, ...page.data.filter((each) => !known.has(each.id))]);
        setHasMore(page.has_more);
      }),
    [guarded],
  );

  const search = useCallback(
    (words: string, signal: AbortSignal) =>
      guarded(async () => {
        const known: Conversation[] = [];
        for (let after: string | undefined; ; ) {
          const page = await conversations.search(words, after);
          if (signal.aborted) return;
          known.push(...page.data);
          setFound([...known]);
          if (!page.has_more || !page.last_id || known.length >= MOST_FOUND) return;
          after = page.last_id;
        }
      }),
    [guarded],
  );

  const rename = useCallback(
    (id: string, title: string) =>
      guarded(async () => {
        const card = await conversations.change(id, { title });
        const changed = (before: Conversation[]) => before.map((each) => (each.id === id ? card : each));
        setItems(changed);
        setFound(changed);
      }),
    [guarded],
  );

  const remove = useCallback(
    (id: string) =>
      guarded(async () => {
        const deleted = await conversations.delete(id).catch(unlessGone);
        setAftermath(deleted ? roundsWords(deleted) : []);
        const others = (before: Conversation[]) => before.filter((each) => each.id !== id);
        setItems(others);
        setFound(others);
      }),
    [guarded],
  );

  useEffect(() => void refresh(), [refresh]);
  useReturn(() => void refresh());
  const haveRead = useCallback(() => setAftermath([]), []);
  return { items, found, search, hasMore, problem, more, refresh, rename, remove, aftermath, haveRead, guarded };
}

/** Whoever deletes what was deleted elsewhere has what they wanted. */
function unlessGone(error: unknown): void {
  if (!(error instanceof ApiError) || error.status !== 404) throw error;
}
