import type { ReactNode } from "react";
import { explain } from "../../api/client";
import type { Polled } from "./usePolled";
import { When } from "./When";

interface LoadedProps<T> {
  polled: Polled<T>;
  children: (value: T) => ReactNode;
}

/** What was polled once it is there; a failure takes its place, or stands above what is known from before. */
export function Loaded<T>({ polled, children }: LoadedProps<T>) {
  const { value, at, problem, refresh } = polled;
  return (
    <>
      {problem !== null && (
        <p className="c-problem" role="alert">
          {at !== null && (
            <>
              This is from <When time={at} />.{" "}
            </>
          )}
          {explain(problem)}{" "}
          <button type="button" className="link" onClick={() => void refresh()}>
            Try again
          </button>
        </p>
      )}
      {value !== undefined ? children(value) : problem === null && <p className="muted">Loading…</p>}
    </>
  );
}
