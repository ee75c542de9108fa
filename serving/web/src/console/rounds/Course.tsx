import { isOpen, type CoursePoint, type Round, type Stage } from "../../api/rounds";
import { Curves, type Curve } from "./Curves";
import { PPO_FURTHER, PPO_MAIN, type PpoFigure } from "./ppo";
import { curve, lacking } from "./words";

type Told = Pick<PpoFigure, "metric" | "title" | "unit"> & { stage: Stage; meaning?: string };

const ofPpo = (figure: PpoFigure): Told => ({ ...figure, stage: "ppo" });
/** Of PPO where a policy gains, what it pays, and how it would collapse. */
const SHOWN = 4;
const MAIN: Told[] = [
  ...PPO_MAIN.slice(0, SHOWN).map(ofPpo),
  { stage: "reward", metric: "reward/loss", title: "Loss of the reward model", unit: "nats" },
  { stage: "sft", metric: "sft/loss", title: "Loss of SFT", unit: "nats per token" },
];
const FURTHER: Told[] = [...PPO_MAIN.slice(SHOWN), ...PPO_FURTHER].map(ofPpo);

interface CourseProps {
  round: Round;
  course: readonly CoursePoint[];
}

/** The curves of a round as they come: PPO's, and the loss of what was trained before. One line says what lacks. */
export function Course({ round, course }: CourseProps) {
  if (course.length === 0 && !isOpen(round)) return null;
  const [main, further] = [MAIN, FURTHER].map((told) => told.map((each) => drawn(each, course)));
  const lacks = lacking(round, main!.filter(({ points }) => points.length > 0));
  return (
    <section aria-label="Curves">
      <h2>Curves</h2>
      {lacks !== "" && <p className="muted">{lacks}</p>}
      <Curves main={main!} further={further!} />
    </section>
  );
}

const drawn = ({ metric, ...told }: Told, course: readonly CoursePoint[]): Curve & { stage: Stage } => ({
  ...told,
  along: told.stage === "ppo" ? "iteration" : "step",
  points: curve(course, told.stage, metric),
});
