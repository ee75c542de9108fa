import { fireEvent, render, screen, within } from "@testing-library/react";
import { expect, test } from "vitest";
import type { CoursePoint } from "../../api/rounds";
import { Course } from "./Course";
import { PPO_FURTHER, PPO_MAIN } from "./ppo";
import { ROUND } from "./round_double";

const step = (metrics: Record<string, number>): CoursePoint => ({ stage: "ppo", step: 1, total: 9, time: 1, metrics });
const titles = () => screen.getAllByRole("figure").map((figure) => figure.querySelector("strong")!.textContent);

test("of PPO four figures are seen at once, and the others with what they mean once they are unfolded", () => {
  const all = Object.fromEntries([...PPO_MAIN, ...PPO_FURTHER].map(({ metric }) => [metric, 0.5]));
  render(<Course round={ROUND} course={[step(all)]} />);
  expect(titles()).toEqual(["Score", "KL to the reference", "Length", "Entropy"]);
  const fold = screen.getByText("8 more figures of PPO").closest("details")!;
  fold.open = true;
  fireEvent(fold, new Event("toggle"));
  expect(titles()).toHaveLength(12);
  const values = within(screen.getByText("Values clipped").closest("figure")!);
  expect(values.getByText("Those whose value the value loss clipped.")).toBeTruthy();
});

test("what a round did not tell has no place, and unfolds nothing", () => {
  render(<Course round={ROUND} course={[step({ "objective/score": 1, "objective/kl": 0.5 })]} />);
  expect(titles()).toEqual(["Score", "KL to the reference"]);
  expect(screen.queryByText(/of PPO$/)).toBeNull();
});
