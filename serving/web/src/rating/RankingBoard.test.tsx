import { fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import { afterEach, describe, expect, it, vi } from "vitest";
import { accepted, bodies, deleted, failure, gateway } from "./gateway_double";
import { spotOf } from "./Places";
import { RankingBoard } from "./RankingBoard";

const IDS = ["r:0", "r:1", "r:2", "r:3"];
const ANSWERS = IDS.map((completionId, index) => ({
  completionId,
  text: `Text of ${"ABCD"[index]}. ${"long ".repeat(500)}end`,
}));
const handle = (letter: string) => screen.getByRole("button", { name: new RegExp(`^Answer ${letter}, `) });
const press = (...keys: string[]) => keys.forEach((key) => fireEvent.keyDown(document.activeElement!, { key }));
const submit = () => fireEvent.keyDown(document.activeElement!, { key: "Enter", ctrlKey: true });
// The library for dragging has a region of its own, which stays empty.
const says = (words: RegExp) =>
  waitFor(() => expect(document.querySelector(".r-status [role=status]")!.textContent).toMatch(words));
const spoken = () => screen.getByRole("log").textContent;
const RANKING = { type: "ranking", candidates: IDS, presented_order: IDS, partial: false, none_acceptable: false };

function shown(props: Partial<Parameters<typeof RankingBoard>[0]> = {}, more = {}) {
  const asked = gateway({
    "POST /v1/feedback": () => accepted("ranking", "fb_1", { continue_from: "r:1", ...more }),
    "DELETE /v1/feedback": deleted("fb_1"),
  });
  const onRanked = vi.fn();
  const onUndone = vi.fn();
  render(<RankingBoard answers={ANSWERS} onRanked={onRanked} onUndone={onUndone} {...props} />);
  return { asked, onRanked, onUndone };
}

afterEach(() => vi.unstubAllGlobals());

describe("a ranking by keys alone", () => {
  it("takes one digit an answer, and one chord", async () => {
    const { asked, onRanked } = shown();
    expect(document.activeElement).toBe(handle("A"));
    press("2", "1", "4", "3");
    expect(screen.getByText("B > A > D > C")).toBeTruthy();
    submit();
    expect(screen.queryByText("The chat goes on from the best.")).toBeNull();
    await says(/^Saved: B > A > D > C$/);
    expect(screen.getByText("The chat goes on from the best.")).toBeTruthy();
    expect(screen.queryByText(/Drag by the handle/)).toBeNull();
    expect(bodies(asked)).toEqual([
      ["POST /v1/feedback", { ...RANKING, ranking: [["r:1"], ["r:0"], ["r:3"], ["r:2"]] }],
    ]);
    await waitFor(() => expect(onRanked).toHaveBeenCalledTimes(1));
    expect(onRanked.mock.calls[0]![0]).toMatchObject({ feedbackId: "fb_1", winner: "r:1", reveal: null });
  });

  it("lifts, moves, ties and drops, saying so each time, with the focus on the answer in hand", () => {
    shown();
    handle("A").focus();
    press("1", "2", "3", "4", "Home");
    expect(document.activeElement).toBe(handle("A"));
    press("ArrowDown", " ");
    expect(spoken()).toContain("Answer B lifted, place 2 of 4.");
    expect(handle("B").getAttribute("aria-pressed")).toBe("true");
    press("ArrowUp");
    expect(spoken()).toBe("Answer B, place 1 of 4.");
    expect(document.activeElement).toBe(handle("B"));
    press(" ");
    expect(spoken()).toBe("Answer B dropped, place 1 of 4.");
    press("ArrowDown", "=");
    expect(spoken()).toBe("Answer A, place 1 of 3, tied with B.");
    expect(document.activeElement).toBe(handle("A"));
    expect(screen.getByText("A = B > C > D")).toBeTruthy();
    press(" ", "ArrowDown", "Escape");
    expect(spoken()).toBe("Answer A put back, place 1 of 3, tied with B.");
    expect(screen.getByText("A = B > C > D")).toBeTruthy();
  });

  it("does not take the focus from somebody who writes", () => {
    render(<input aria-label="draft" />);
    screen.getByLabelText("draft").focus();
    shown();
    expect(document.activeElement).toBe(screen.getByLabelText("draft"));
  });

  it("has one stop for Tab among the handles", () => {
    shown();
    const stops = () => ["A", "B", "C", "D"].filter((letter) => handle(letter).tabIndex === 0);
    expect(stops()).toEqual(["A"]);
    handle("A").focus();
    press("ArrowDown", "ArrowDown");
    expect(stops()).toEqual(["C"]);
    expect(document.activeElement).toBe(handle("C"));
  });

  it("leaves answers on the shelf", async () => {
    const { asked } = shown();
    handle("A").focus();
    press("End");
    press("1");
    submit();
    await says(/^Saved: D; not ranked: A, B, C$/);
    expect(bodies(asked)[0]![1]).toEqual({ ...RANKING, ranking: [["r:3"]], partial: true });
  });
});

describe("a ranking by pointer", () => {
  it("is made by choosing places, and the choice keeps the focus", () => {
    shown();
    const choice = screen.getByRole("combobox", { name: "Place of Answer C" });
    choice.focus();
    fireEvent.change(choice, { target: { value: "1" } });
    expect(screen.getByText("C; not ranked: A, B, D")).toBeTruthy();
    expect(document.activeElement).toBe(screen.getByRole("combobox", { name: "Place of Answer C" }));
    fireEvent.change(document.activeElement!, { target: { value: "0" } });
    expect(screen.getByText("Nothing is ranked yet.")).toBeTruthy();
  });

  it("lands where it is let go", () => {
    expect(["gap:2", "place:0", "shelf", "answer"].map(spotOf)).toEqual([
      { at: "gap", index: 2 },
      { at: "place", index: 0 },
      { at: "shelf" },
      null,
    ]);
  });
});

describe("the board", () => {
  it("shows the full text, which folds", () => {
    shown();
    const answer = within(screen.getByRole("article", { name: "Answer B" }));
    expect(answer.getByText(/^Text of B.*end$/)).toBeTruthy();
    fireEvent.click(answer.getByRole("button", { name: "Fold" }));
    expect(answer.queryByText(/^Text of B/)).toBeNull();
    handle("B").focus();
    press("e");
    expect(answer.getByText(/^Text of B.*end$/)).toBeTruthy();
    fireEvent.click(screen.getByRole("button", { name: "Fold all" }));
    expect(screen.queryByText(/^Text of/)).toBeNull();
    fireEvent.click(screen.getByRole("button", { name: "Show all" }));
    expect(screen.getAllByText(/^Text of/)).toHaveLength(4);
  });

  it("takes nothing for a ranking before something is said", () => {
    const { asked } = shown();
    const button = screen.getByRole<HTMLButtonElement>("button", { name: "Submit ranking" });
    expect(button.disabled).toBe(true);
    handle("A").focus();
    submit();
    expect(asked).toEqual([]);
  });

  it("sends that none is acceptable", async () => {
    const { asked } = shown();
    fireEvent.click(screen.getByRole("checkbox", { name: /None is acceptable/ }));
    expect(spoken()).toBe("None is acceptable.");
    fireEvent.click(screen.getByRole("button", { name: "Submit ranking" }));
    await says(/^Saved: None is acceptable/);
    expect(bodies(asked)[0]![1]).toEqual({ ...RANKING, ranking: [IDS], none_acceptable: true });
  });

  it("is blind until it is saved, then tells, can be undone and sent again", async () => {
    const reveal = { A: "policy-v2", B: "policy-v3", C: "policy-v2", D: "policy-v3" };
    const { asked, onRanked, onUndone } = shown({ comparisonId: "cmp_1" }, { reveal });
    expect(document.body.textContent).not.toContain("policy-v");
    handle("A").focus();
    press("1", "2", "3", "4");
    submit();
    await says(/^Saved/);
    expect(within(screen.getByRole("article", { name: "Answer D" })).getByText("policy-v3")).toBeTruthy();
    const { candidates: _, ...offered } = RANKING;
    expect(bodies(asked)[0]![1]).toEqual({
      ...offered,
      comparison_id: "cmp_1",
      ranking: IDS.map((id) => [id]),
    });
    expect(document.activeElement).toBe(screen.getByRole("button", { name: "Undo" }));
    fireEvent.click(screen.getByRole("button", { name: "Undo" }));
    await says(/^Taken back$/);
    expect(document.activeElement).toBe(handle("A"));
    await waitFor(() => expect(onUndone).toHaveBeenCalledTimes(1));
    expect(document.body.textContent).not.toContain("policy-v");
    fireEvent.click(screen.getByRole("button", { name: "Submit ranking" }));
    await says(/^Saved/);
    await waitFor(() => expect(onRanked).toHaveBeenCalledTimes(2));
  });

  it("goes on with what was begun, if that is of these answers, and tells how far it has come", () => {
    const begun = {
      candidates: IDS,
      places: { "r:2": 1, "r:0": 2, "r:1": 2 },
      noneAcceptable: true,
      lifted: { id: "r:2", before: {} },
    };
    const memory = { ranking: () => begun, keepRanking: vi.fn() };
    shown({ memory });
    expect(screen.getByText(/^C > A = B; not ranked: D/)).toBeTruthy();
    expect(screen.getByRole<HTMLInputElement>("checkbox", { name: /None is acceptable/ }).checked).toBe(true);
    expect(document.activeElement).toBe(handle("D")); // the next to be placed
    press("3");
    expect(memory.keepRanking.mock.lastCall![0]).toEqual({
      ...begun,
      places: { ...begun.places, "r:3": 3 },
      lifted: null,
    });
  });

  it("does not go on with the ranking of other answers", () => {
    const begun = { candidates: [...IDS].reverse(), places: { "r:0": 1 }, noneAcceptable: true, lifted: null };
    shown({ memory: { ranking: () => begun, keepRanking: vi.fn() } });
    expect(screen.getByText("Nothing is ranked yet.")).toBeTruthy();
  });

  it("keeps a ranking that was not saved", async () => {
    const asked = gateway({
      "POST /v1/feedback": [failure(422, "they answer different prompts", "different_prompts")],
    });
    const onRanked = vi.fn();
    render(<RankingBoard answers={ANSWERS.slice(0, 2)} onRanked={onRanked} />);
    handle("A").focus();
    press("2", "1");
    submit();
    await says(/^Not saved\. they answer different prompts/);
    expect(asked).toHaveLength(1);
    expect(onRanked).not.toHaveBeenCalled();
    expect(screen.getByText("B > A")).toBeTruthy();
  });
});
