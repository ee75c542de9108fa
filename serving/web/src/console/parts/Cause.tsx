/** Our own words, of which there are some, and after them what a library said. */
const TOLD = /^(\S+ .*?): (.+)$/s;

/** Why something is not well: in words, and what a program said of it for whoever unfolds it. */
export function Cause({ reason }: { reason: string }) {
  const [, words = reason, raw] = TOLD.exec(reason) ?? [];
  return (
    <>
      {words}
      {raw !== undefined && (
        <details className="c-raw">
          <summary>Details</summary>
          <code>{raw}</code>
        </details>
      )}
    </>
  );
}
