import type { Release } from "../../api/releases";

const MARKS = { taken: "✓", "under way": "▸", "to come": "·" } as const;

export function Steps({ release: { steps, paused, open } }: { release: Release }) {
  return (
    <ol className="c-steps">
      {steps.map(({ says, state }, index) => {
        const shown = open || state === "taken" ? state : "to come";
        const told = !open && state !== "taken" ? "not taken" : state === "under way" && paused ? "paused here" : state;
        return (
          <li key={index} className={shown.replace(" ", "-")} aria-current={shown === "under way" ? "step" : undefined}>
            <span className="mark" aria-hidden="true">
              {MARKS[shown]}
            </span>
            <span>{says}</span>
            <span className="muted small">{told}</span>
          </li>
        );
      })}
    </ol>
  );
}
