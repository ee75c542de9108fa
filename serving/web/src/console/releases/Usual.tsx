import type { UsualRelease } from "../../api/releases";
import { endOf } from "./words";

/** What becomes of a version that passes its gate, and how a release goes of which nothing else is asked. */
export function Usual({ usual: { says, mode, steps, broken } }: { usual: UsualRelease }) {
  return (
    <section className="c-card" aria-label="What becomes of a new version">
      <p>{says}</p>
      {broken === null ? (
        <p className="muted">
          A release that begins now, if nothing else is asked: {steps.map((step) => step.says).join(", ")}; then{" "}
          {endOf(mode)}.
        </p>
      ) : (
        <p className="c-problem">No release can begin by the installation’s plan: {broken}</p>
      )}
    </section>
  );
}
