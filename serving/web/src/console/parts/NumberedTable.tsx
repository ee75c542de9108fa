import { Paged } from "./Paged";
import { Table, type Column } from "./Table";
import { usePages, type Pages } from "./usePages";

/** A page of what has numbers, newest first. */
export interface Newest<T> {
  data: T[];
  /** There are older ones. */
  has_more: boolean;
}

/** The newest, or those before one. */
type List<T> = (signal: AbortSignal, before: number) => Promise<Newest<T>>;

interface Props<T> {
  newest: Newest<T>;
  list: List<T>;
  label: string;
  columns: Column<T>[];
  /** What is said where there are none. */
  empty: string;
}

/** All that has numbers, newest first: the newest page as it is polled, and the older ones when they are asked for. */
export function NumberedTable<T extends { id: number }>({ newest, list, label, columns, empty }: Props<T>) {
  return (
    <Paged pages={useOlder(newest, list)} empty={empty}>
      {(shown) => <Table label={label} columns={columns} rows={shown} id={({ id }) => id} empty="" />}
    </Paged>
  );
}

/** Older ones begin anew when something new has moved the newest page's end: nothing is left out between them. */
function useOlder<T extends { id: number }>(newest: Newest<T>, list: List<T>): Pages<T> {
  const end = endOf(newest);
  const older = usePages<T>(async (before, signal) => {
    if (before === undefined) return { items: [], next: end };
    const page = await list(signal, Number(before));
    return { items: page.data, next: endOf(page) };
  }, end ?? "");
  return { ...older, items: [...newest.data, ...older.items] };
}

const endOf = <T extends { id: number }>({ data, has_more }: Newest<T>): string | null =>
  has_more ? String(data.at(-1)?.id) : null;
