import { expect, test } from "vitest";
import { consoleIn, consolePath, conversationIn } from "./route";

test.each([
  ["/console", { view: "overview", id: null }],
  ["/console/", { view: "overview", id: null }],
  ["/console/rounds", { view: "rounds", id: null }],
  ["/console/rounds/7", { view: "rounds", id: "7" }],
  ["/console/raters/a%2Fb", { view: "raters", id: "a/b" }],
  ["/console/raters/%", { view: "raters", id: null }],
  ["/consoles", null],
  ["/chat/console", null],
])("%s in the console", (path, expected) => expect(consoleIn(path)).toEqual(expected));

test("a path leads to what it was made of", () => {
  expect(consoleIn(consolePath("raters", "a/b c"))).toEqual({ view: "raters", id: "a/b c" });
  expect(conversationIn(consolePath("rounds", 1))).toBeNull();
});
