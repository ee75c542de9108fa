import { expect, test } from "vitest";
import { wilson } from "./wilson";

// Newcombe 1998, table I: the score method without continuity correction.
test.each([
  [81, 263, 0.2553, 0.3662],
  [15, 148, 0.0624, 0.1605],
  [0, 20, 0, 0.1611],
  [1, 29, 0.0061, 0.1718],
])("%d of %d lie from %d to %d", (part, count, low, high) => {
  const found = wilson(part / count, count);
  expect([found.low.toFixed(4), found.high.toFixed(4)]).toEqual([low.toFixed(4), high.toFixed(4)]);
});
