import type { ReactNode } from "react";
import { explain } from "../../api/client";
import type { Pages } from "./usePages";

interface PagedProps<T> {
  pages: Pages<T>;
  /** Said in place of an empty list. */
  empty: string;
  children: (items: T[]) => ReactNode;
}

/** What is there of a long list, with a way to more of it. */
export function Paged<T>({ pages, empty, children }: PagedProps<T>) {
  const { items, next, loading, problem, more, refresh } = pages;
  const nothing = items.length === 0;
  const ready = !loading && problem === null;
  return (
    <div className="c-stack" aria-busy={loading}>
      {!nothing && children(items)}
      {nothing && ready && <p className="muted">{next === null ? empty : "None among those looked at so far."}</p>}
      {problem !== null && (
        <p className="c-problem" role="alert">
          {explain(problem)}{" "}
          <button type="button" className="link" onClick={() => void (nothing ? refresh() : more())}>
            Try again
          </button>
        </p>
      )}
      {loading && <p className="muted">Loading…</p>}
      {ready && next !== null && (
        <div>
          <button type="button" onClick={() => void more()}>
            {nothing ? "Look further" : "Show more"}
          </button>
        </div>
      )}
    </div>
  );
}
