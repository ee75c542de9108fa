import { expect, test } from "vitest";
import { TextBuffer } from "./buffer";

test("ten thousand pieces between two frames are painted once", () => {
  const told: string[] = [];
  const frames: (() => void)[] = [];
  const buffer = new TextBuffer((text) => told.push(text), (paint) => frames.push(paint), () => undefined);
  for (let piece = 0; piece < 10_000; piece++) buffer.append("x");
  expect(frames).toHaveLength(1);
  frames[0]!();
  expect(told).toEqual(["x".repeat(10_000)]);
});

test("what waits for a frame is not lost at the end", () => {
  const told: string[] = [];
  const cancelled: number[] = [];
  const buffer = new TextBuffer((text) => told.push(text), () => 7, (handle) => cancelled.push(handle));
  buffer.append("a");
  buffer.append("");
  expect(buffer.flush()).toBe("a");
  expect(buffer.flush()).toBe("a");
  expect([told, cancelled]).toEqual([["a"], [7]]);
});
