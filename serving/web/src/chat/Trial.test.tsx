import { fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { accepted, gateway, json, Streamed } from "../rating/gateway_double";
import { TrialView, type Trial } from "./Trial";

const messages = [{ role: "user" as const, content: "Why is the sky blue?" }];
const source = { kind: "blind" as const, request: { model: "auto", k: 3, messages } };
const TRIAL: Trial = { parent: null, messages, way: { kind: "rank", source }, asked: { known: new Set() } };
const FACTS = { comparison_id: "cmp_1", conversation_id: "web-1", completion_ids: ["c:0", "c:1", "c:2"] };
const CUT = { ...FACTS, partial: true, stored: true };

function shown() {
  Element.prototype.scrollIntoView = vi.fn(); // jsdom has no layout
  const streamed = new Streamed();
  const asked = gateway({
    "POST /v1/comparisons": () => streamed.response,
    "POST /v1/chat/completions/": () => json({}),
    "POST /v1/feedback": () => accepted("ranking"),
  });
  render(<TrialView trial={TRIAL} onDecided={vi.fn()} onClose={vi.fn()} />);
  return { streamed, asked };
}

afterEach(() => vi.unstubAllGlobals());

test("an answer that was stopped before it began is not ranked, and the others are named", async () => {
  const { streamed, asked } = shown();
  streamed.text(0, "Air.", FACTS);
  streamed.text(2, "Light.");
  for (const slot of [0, 1, 2]) streamed.finish(slot, CUT);
  streamed.end();
  await screen.findByText("Submit ranking");
  for (const handle of document.querySelectorAll("[data-handle]")) fireEvent.keyDown(handle, { key: "1" });
  fireEvent.click(screen.getByText("Submit ranking"));
  await screen.findByText(/^Saved/);
  const { comparison_id, candidates, ranking } = asked.at(-1)!.body!;
  expect([comparison_id, candidates, ranking]).toEqual([undefined, ["c:0", "c:2"], [["c:0", "c:2"]]]);
});

test("Escape stops them while they are written, and not once they are there", async () => {
  const { streamed, asked } = shown();
  const stops = () => asked.filter(({ path }) => path.endsWith("/cancel")).map(({ path }) => path);
  for (const slot of [0, 1, 2]) streamed.text(slot, "Air.", FACTS);
  await waitFor(() => expect(screen.getAllByText("Air.")).toHaveLength(3));
  fireEvent.keyDown(document.body, { key: "Escape" });
  expect(stops()).toEqual(["/v1/chat/completions/cmp_1/cancel"]);
  for (const slot of [0, 1, 2]) streamed.finish(slot, CUT);
  streamed.end();
  await screen.findByText("Submit ranking");
  fireEvent.keyDown(document.body, { key: "Escape" });
  expect(stops()).toHaveLength(1);
});

test.each([
  ["fewer than two have begun", CUT, "There are not two answers to rank."],
  ["they are not kept", { ...CUT, stored: false }, "These answers are not kept, so they cannot be ranked."],
])("there is nothing to rank where %s, and it can be tried again", async (_, facts, sentence) => {
  const { streamed } = shown();
  streamed.text(0, "Air.", FACTS);
  if (!facts.stored) streamed.text(1, "Light.");
  for (const slot of [0, 1, 2]) streamed.finish(slot, facts);
  streamed.end();
  await screen.findByText(sentence);
  expect(screen.getByText("Try again")).toBeTruthy();
});
