import { expect, test, vi } from "vitest";
import { sends } from "./keyboard";

const enter = { key: "Enter", shiftKey: false, ctrlKey: false, metaKey: false };

test.each([true, false])("Enter sends where there are keys, and with Ctrl or Command anywhere", (keys) => {
  vi.stubGlobal("matchMedia", () => ({ matches: keys }));
  expect(sends(enter)).toBe(keys);
  expect(sends({ ...enter, ctrlKey: true }) && sends({ ...enter, metaKey: true })).toBe(true);
  expect(sends({ ...enter, shiftKey: true }) || sends({ ...enter, key: "a" })).toBe(false);
});
