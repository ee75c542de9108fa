import { fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import { afterEach, describe, expect, it, vi } from "vitest";
import { EditAnswer } from "./EditAnswer";
import { accepted, bodies, deleted, failure, gateway } from "./gateway_double";

const field = () => screen.getByRole<HTMLTextAreaElement>("textbox");
const write = (value: string) => fireEvent.change(field(), { target: { value } });
const save = () => screen.getByRole<HTMLButtonElement>("button", { name: "Save correction" });
const says = (words: RegExp) => waitFor(() => expect(screen.getByRole("status").textContent).toMatch(words));
const SAID = { type: "demonstration", completion_id: "r:0", based_on_edit: true };

function shown(answers: Record<string, Response | Response[]> = {}, learns = true) {
  const asked = gateway({
    "POST /v1/feedback": accepted("demonstration"),
    "DELETE /v1/feedback": deleted("fb_1"),
    ...answers,
  });
  const onClose = vi.fn();
  const onSaved = vi.fn();
  render(<EditAnswer completionId="r:0" text="The sky is red." learns={learns} onClose={onClose} onSaved={onSaved} />);
  return { asked, onClose, onSaved };
}

afterEach(() => vi.unstubAllGlobals());

describe("an edited answer", () => {
  it("shows what changed, and is saved as a demonstration", async () => {
    const { asked, onSaved } = shown();
    expect(document.activeElement).toBe(field());
    expect(save().disabled).toBe(true);
    write("The sky is blue.");
    const changes = screen.getByRole("group", { name: "Changes" });
    await waitFor(() => expect(changes.querySelector("del")!.textContent).toBe("removed: red"));
    expect(changes.querySelector("ins")!.textContent).toBe("added: blue");
    fireEvent.keyDown(field(), { key: "Enter", ctrlKey: true });
    await says(/^Saved/);
    expect(bodies(asked)).toEqual([["POST /v1/feedback", { ...SAID, content: "The sky is blue." }]]);
    expect(onSaved).toHaveBeenCalledWith("The sky is blue.");
    expect(screen.getByText("This is what is saved.")).toBeTruthy();
  });

  it("is revised, and taken back", async () => {
    const { asked, onSaved } = shown();
    write("Blue.");
    fireEvent.click(save());
    await says(/^Saved/);
    write("Blue!");
    fireEvent.click(save());
    await waitFor(() => expect(asked).toHaveLength(2));
    await says(/^Saved/);
    fireEvent.click(screen.getByRole("button", { name: "Take it back" }));
    await says(/^Taken back/);
    expect(asked.map(({ method }) => method)).toEqual(["POST", "POST", "DELETE"]);
    expect(onSaved.mock.calls).toEqual([["Blue."], ["Blue!"], [null]]);
  });

  it("is left by Escape, which asks if something would be lost", () => {
    const { onClose } = shown();
    fireEvent.keyDown(field(), { key: "Escape" });
    expect(onClose).toHaveBeenCalledTimes(1);
    write("Blue.");
    fireEvent.keyDown(field(), { key: "Escape" });
    expect(onClose).toHaveBeenCalledTimes(1);
    const question = screen.getByRole("alertdialog");
    fireEvent.keyDown(question, { key: "Escape" });
    expect(screen.queryByRole("alertdialog")).toBeNull();
    expect(field().value).toBe("Blue.");
    fireEvent.click(screen.getByRole("button", { name: "Close" }));
    fireEvent.click(within(screen.getByRole("alertdialog")).getByRole("button", { name: "Discard" }));
    expect(onClose).toHaveBeenCalledTimes(2);
  });

  it("keeps the words where saving failed", async () => {
    const { onSaved } = shown({ "POST /v1/feedback": [failure(503, "away"), accepted("demonstration")] });
    write("Blue.");
    fireEvent.click(save());
    await says(/^Not saved\. away/);
    expect(field().value).toBe("Blue.");
    expect(onSaved).not.toHaveBeenCalled();
    fireEvent.click(screen.getByRole("button", { name: "Save correction" }));
    await says(/^Saved/);
  });

  it.each([
    [true, "train", "Saved: later policies learn from it"],
    [true, "eval", "Saved"],
    [false, "train", "Saved. Nothing is learned from this chat."],
  ])("promises what becomes of it: chat %s, rater of %s", async (learns, split, words) => {
    shown({ "POST /v1/feedback": accepted("demonstration", "fb_1", { split }) }, learns);
    write("Blue.");
    fireEvent.click(save());
    await says(/^Saved/);
    expect(screen.getByRole("status").textContent).toBe(words);
  });

  it("is neither empty nor longer than the API takes", () => {
    shown();
    write("  \n ");
    expect(screen.getByText("An empty answer is no correction.")).toBeTruthy();
    write("x".repeat(32_769));
    expect(screen.getByText(/^1 characters too long/)).toBeTruthy();
    expect(save().disabled).toBe(true);
    write("🙂".repeat(32_768));
    expect(save().disabled).toBe(false);
  });

  it("goes on with what was begun, and tells what is not saved yet", async () => {
    const asked = gateway({ "POST /v1/feedback": accepted("demonstration") });
    const onDraft = vi.fn();
    const onClose = vi.fn();
    const saved = { id: "fb_1", content: "Blue." };
    render(
      <EditAnswer completionId="r:0" text="Red." learns saved={saved} begun="Blu" onDraft={onDraft} onClose={onClose} />,
    );
    expect(field().value).toBe("Blu");
    write("Blue, by day.");
    expect(onDraft).toHaveBeenLastCalledWith("Blue, by day.");
    fireEvent.click(save());
    await says(/^Saved/);
    await waitFor(() => expect(onDraft).toHaveBeenLastCalledWith(null));
    write("Blue, by");
    fireEvent.click(screen.getByRole("button", { name: "Close" }));
    expect(onDraft).toHaveBeenLastCalledWith("Blue, by");
    fireEvent.click(screen.getByRole("button", { name: "Discard" }));
    expect(onDraft).toHaveBeenLastCalledWith(null);
    expect(asked).toHaveLength(1);
  });
});
