import type { Standing } from "./useStanding";

interface Props {
  standing: Pick<Standing, "phase" | "problem" | "again">;
  /** What has been saved, or taken back. */
  saved?: string;
  removed?: string;
}

/** Says what became of a judgement, aloud too. */
export function Status({ standing, saved = "Saved", removed = "Taken back" }: Props) {
  const { phase, problem, again } = standing;
  const words = { idle: "", saving: "Saving…", saved, removed, failed: `Not saved. ${problem ?? ""}` }[phase];
  return (
    <span className={`r-status r-${phase}`}>
      <span role="status">{words}</span>
      {phase === "failed" && (
        <button type="button" className="r-link" onClick={() => void again()}>
          Try again
        </button>
      )}
    </span>
  );
}
