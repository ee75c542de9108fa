import type { CoursePoint, Stage } from "../../api/rounds";
import { Plot } from "../parts/Plot";
import { curve } from "./words";

interface Curve {
  stage: Stage;
  metric: string;
  title: string;
  unit: string;
}

const PPO: Curve[] = [
  { stage: "ppo", metric: "objective/score", title: "Score", unit: "of the reward model, mean" },
  { stage: "ppo", metric: "objective/kl", title: "KL to the reference", unit: "nats per completion" },
  { stage: "ppo", metric: "completion/length", title: "Length", unit: "tokens per completion" },
  { stage: "ppo", metric: "objective/entropy", title: "Entropy", unit: "nats per token" },
];
const LOSSES: Curve[] = [
  { stage: "reward", metric: "reward/loss", title: "Loss of the reward model", unit: "nats" },
  { stage: "sft", metric: "sft/loss", title: "Loss of SFT", unit: "nats per token" },
];

/** The curves of a round as they come: PPO's four, and the loss of what was trained before. */
export function Course({ course, live }: { course: readonly CoursePoint[]; live: boolean }) {
  const losses = LOSSES.filter(({ stage, metric }) => curve(course, stage, metric).length > 0);
  if (course.length === 0 && !live) return null;
  return (
    <section aria-label="Curves">
      <h2>Curves</h2>
      <div className="c-columns">
        {[...PPO, ...losses].map((each) => (
          <div key={each.title} className="c-card">
            <Plot
              title={each.title}
              series={[{ name: each.title, points: curve(course, each.stage, each.metric) }]}
              x={{ name: each.stage === "ppo" ? "iteration" : "step", kind: "whole" }}
              y={{ name: each.unit }}
              height={190}
              empty={live ? "Comes with the first steps." : "This stage was not reached."}
            />
          </div>
        ))}
      </div>
    </section>
  );
}
