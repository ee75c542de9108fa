import type { Release } from "../../api/releases";

const MARKS = { taken: "✓", "under way": "▸", "to come": "·", "not taken": "·" } as const;

export function Steps({ release: { steps, paused } }: { release: Release }) {
  return (
    <ol className="c-steps">
      {steps.map(({ says, state }, index) => {
        const told = state === "under way" && paused ? "paused here" : state;
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
