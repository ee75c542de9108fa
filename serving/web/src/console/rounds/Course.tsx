import { isOpen, type CoursePoint, type Round, type Stage } from "../../api/rounds";
import { Plot } from "../parts/Plot";
import { curve, lacking } from "./words";

interface Curve {
  stage: Stage;
  metric: string;
  title: string;
  unit: string;
}

const CURVES: Curve[] = [
  { stage: "ppo", metric: "objective/score", title: "Score", unit: "of the reward model, mean" },
  { stage: "ppo", metric: "objective/kl", title: "KL to the reference", unit: "nats per completion" },
  { stage: "ppo", metric: "completion/length", title: "Length", unit: "tokens per completion" },
  { stage: "ppo", metric: "objective/entropy", title: "Entropy", unit: "nats per token" },
  { stage: "reward", metric: "reward/loss", title: "Loss of the reward model", unit: "nats" },
  { stage: "sft", metric: "sft/loss", title: "Loss of SFT", unit: "nats per token" },
];

interface CourseProps {
  round: Round;
  course: readonly CoursePoint[];
}

/** The curves of a round as they come: PPO's four, and the loss of what was trained before. One line says what lacks. */
export function Course({ round, course }: CourseProps) {
  if (course.length === 0 && !isOpen(round)) return null;
  const known = CURVES.map((each) => ({ ...each, points: curve(course, each.stage, each.metric) }));
  const drawn = known.filter(({ points }) => points.length > 0);
  const lacks = lacking(round, drawn);
  return (
    <section aria-label="Curves">
      <h2>Curves</h2>
      {lacks !== "" && <p className="muted">{lacks}</p>}
      <div className="c-columns">
        {drawn.map(({ stage, title, unit, points }) => (
          <div key={title} className="c-card">
            <Plot
              title={title}
              series={[{ name: title, points }]}
              x={{ name: stage === "ppo" ? "iteration" : "step", kind: "whole" }}
              y={{ name: unit }}
              height={190}
            />
          </div>
        ))}
      </div>
    </section>
  );
}
