import { beforeEach, expect, test } from "vitest";
import { begunWords, editedIn, forgetWords, keepWords } from "./begun_words";

beforeEach(() => sessionStorage.clear());

test("what was begun of an answer is kept until it is given, beside the others", () => {
  keepWords("web-1", "a:0", "correction", "Blue.");
  keepWords("web-1", "b:0", "comment", "because");
  keepWords("web-1", "a:0", "comment", "so");
  keepWords("web-2", "c:0", "correction", "Red.");
  expect(begunWords("web-1", "a:0")).toEqual({ correction: "Blue.", comment: "so" });
  expect(["web-1", "web-2", "web-3"].map((id) => editedIn(id, "correction"))).toEqual(["a:0", "c:0", null]);
  keepWords("web-2", "d:0", "question", "milk?");
  expect(["web-1", "web-2"].map((id) => editedIn(id, "question"))).toEqual([null, "d:0"]);
  keepWords("web-1", "a:0", "correction", null);
  expect(begunWords("web-1", "a:0")).toEqual({ comment: "so" });
  expect(editedIn("web-1", "correction")).toBeNull();
  const report = { reasons: ["spam"], comment: "It", open: true };
  keepWords("web-1", "a:0", "report", report);
  expect(begunWords("web-1", "a:0")).toEqual({ comment: "so", report });
  keepWords("web-1", "a:0", "report", null);
  forgetWords("web-2");
  keepWords("web-1", "a:0", "comment", null);
  keepWords("web-1", "b:0", "comment", null);
  expect(sessionStorage.length).toBe(0);
});
