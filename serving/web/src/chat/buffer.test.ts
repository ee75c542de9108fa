import { expect, test } from "vitest";
import { SlowClock } from "../app/pace_double";
import { TextBuffer } from "./buffer";

test("ten thousand pieces between two frames are painted once", () => {
  const told: string[] = [];
  const clock = new SlowClock();
  const buffer = new TextBuffer((text) => told.push(text), clock);
  for (let piece = 0; piece < 10_000; piece++) buffer.append("x");
  expect(told).toEqual([]);
  clock.pass(16);
  expect(told).toEqual(["x".repeat(10_000)]);
});

test("what waits for a frame is not lost at the end, nor told twice", () => {
  const told: string[] = [];
  const clock = new SlowClock();
  const buffer = new TextBuffer((text) => told.push(text), clock);
  buffer.append("a");
  buffer.append("");
  expect(buffer.flush()).toBe("a");
  expect(buffer.flush()).toBe("a");
  clock.pass(100);
  expect(told).toEqual(["a"]);
});
