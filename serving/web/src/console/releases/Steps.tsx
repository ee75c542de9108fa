import type { Release } from "../../api/releases";
import { waitsForOperator } from "./words";

const MARKS = { taken: "✓", "under way": "▸", "to come": "·", "not taken": "·" } as const;

export function Steps({ release }: { release: Release }) {
  const { steps, paused } = release;
  const held = waitsForOperator(release) ? "waiting here" : "paused here";
  return (
    <ol className="c-steps">
      {steps.map(({ says, state }, index) => {
        const told = state === "under way" && paused ? held : state;
        return (
          <li key={index} className={state.replace(" ", "-")} aria-current={state === "under way" ? "step" : undefined}>
            <span className="mark" aria-hidden="true">
              {MARKS[state]}
            </span>
            <span>{says}</span>
            <span className="muted small">{told}</span>
          </li>
        );
      })}
    </ol>
  );
}
