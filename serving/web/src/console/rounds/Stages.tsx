import type { Round } from "../../api/rounds";
import { STAGE_NAMES, stageStates, stepsOf, type StageState } from "./words";

const MARKS: Record<StageState, string> = {
  done: "✓",
  skipped: "–",
  "under way": "●",
  "ended here": "✕",
  "to come": "",
  "not reached": "",
};

/** The stages in their order, and how far the one under way is. */
export function Stages({ round }: { round: Round }) {
  const { progress } = round;
  const steps = stepsOf(progress);
  return (
    <>
      <ol className="c-stages">
        {stageStates(round).map(({ stage, state }) => (
          <li
            key={stage}
            className={`c-${state.replace(" ", "-")}`}
            aria-current={state === "under way" ? "step" : undefined}
          >
            <span className="c-mark" aria-hidden="true">
              {MARKS[state]}
            </span>
            <span>{STAGE_NAMES[stage]}</span>
            <span className="muted small">{state}</span>
          </li>
        ))}
      </ol>
      {round.state === "running" && (
        <div className="c-progress">
          <progress
            aria-label={`${STAGE_NAMES[round.stage]}: ${steps || "under way"}`}
            max={progress.total || 1}
            value={progress.total ? progress.step : undefined}
          />
          <span className="small">{[STAGE_NAMES[round.stage], steps].filter(Boolean).join(": ")}</span>
        </div>
      )}
    </>
  );
}
