import { expect, test } from "vitest";
import { Pace } from "./pace";
import { SlowClock } from "./pace_double";

/** When it is painted, if each paint costs so much and it is asked for every millisecond. */
function painted(cost: number, during: number): number[] {
  const clock = new SlowClock();
  const times: number[] = [];
  const pace = new Pace(() => (times.push(clock.now()), clock.work(cost)), clock);
  while (clock.now() < during) {
    pace.soon();
    clock.pass(1);
  }
  return times;
}

test.each([
  [1, [16, 32, 48, 64, 80, 96]], // once a frame
  [20, [16, 80, 144]], // no sooner than 60 ms after the last
  [2000, [16, 2032]], // rests for at most a second, here less than its own cost
])("what costs %d ms is painted at %j", (cost, times) => {
  expect(painted(cost, times.at(-1)! + 1)).toEqual(times);
});

test("what was stopped is not painted", () => {
  const clock = new SlowClock();
  const times: number[] = [];
  const pace = new Pace(() => times.push(clock.now()), clock);
  pace.soon();
  pace.stop();
  clock.pass(100);
  expect(times).toEqual([]);
  pace.soon();
  clock.pass(100);
  expect(times).toEqual([112]);
});
