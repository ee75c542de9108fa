import { usePages, type Pages } from "./usePages";

/** A page of what has numbers, newest first. */
export interface Newest<T> {
  data: T[];
  /** There are older ones. */
  has_more: boolean;
}

/**
 * A long list whose newest page is polled, and the older ones by `load`, from before a number, when they are asked for.
 * They begin anew when something new has moved that page's end: nothing is left out between them.
 */
export function useOlder<T extends { id: number }>(
  newest: Newest<T>,
  load: (before: number, signal: AbortSignal) => Promise<Newest<T>>,
): Pages<T> {
  const end = endOf(newest);
  const older = usePages<T>(async (before, signal) => {
    if (before === undefined) return { items: [], next: end };
    const page = await load(Number(before), signal);
    return { items: page.data, next: endOf(page) };
  }, end ?? "");
  return { ...older, items: [...newest.data, ...older.items] };
}

const endOf = <T extends { id: number }>({ data, has_more }: Newest<T>): string | null =>
  has_more ? String(data.at(-1)?.id) : null;
