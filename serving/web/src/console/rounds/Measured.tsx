import type { Round } from "../../api/rounds";
import { Figure, Figures } from "../parts/Figure";
import { figure, ranged } from "../parts/words";
import { numberAt, shareAt } from "./words";

const COLLECTED: [string, string][] = [
  ["rankings", "rankings that train"],
  ["held_out_rankings", "rankings held out"],
  ["ratings", "thumbs"],
  ["new_demonstrations", "new demonstrations"],
  ["prompts", "prompts"],
];

/** What went into a round, and what its stages measured, of those that ended. */
export function Measured({ round: { metrics } }: { round: Round }) {
  const { collect, sft, reward, gate } = metrics;
  if (!collect) return null;
  const fit = (name: string) => shareAt(reward, "held_out", name);
  const gain = numberAt(gate, "gate/score_gain");
  const [low, high] = [numberAt(gate, "gate/score_gain_low"), numberAt(gate, "gate/score_gain_high")];
  const skipped = sft?.["skipped"];
  return (
    <section aria-label="Figures">
      <h2>Figures</h2>
      <Figures>
        {COLLECTED.map(([name, label]) => {
          const count = numberAt(collect, name);
          return count === null ? null : <Figure key={name} name={label} value={figure(count)} />;
        })}
        {fit("accuracy") && <Figure name="reward model accuracy" {...fit("accuracy")!} />}
        {fit("ece") && <Figure name="calibration error (ECE)" {...fit("ece")!} />}
        {gain !== null && (
          <Figure
            name="score gain over stable"
            value={figure(gain)}
            note={low === null || high === null ? null : ranged({ low, high })}
          />
        )}
      </Figures>
      {typeof skipped === "string" && <p className="muted small">SFT was skipped: {skipped}.</p>}
    </section>
  );
}
