import { fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { KeptFeedback } from "../api/client";
import { FlagDialog } from "./FlagDialog";
import { accepted, bodies, deleted, failure, gateway } from "./gateway_double";
import { ReasonChips } from "./ReasonChips";

// jsdom knows the element, not what a browser does with it.
beforeAll(() => {
  HTMLDialogElement.prototype.showModal ??= function (this: HTMLDialogElement) {
    this.setAttribute("open", "");
  };
  HTMLDialogElement.prototype.close ??= function (this: HTMLDialogElement) {
    this.removeAttribute("open");
  };
});
afterEach(() => vi.unstubAllGlobals());

const says = (words: RegExp) => waitFor(() => expect(screen.getByRole("status").textContent).toMatch(words));
const button = (name: string) => screen.getByRole<HTMLButtonElement>("button", { name });

describe("a report", () => {
  it("names a reason or says something, and can be taken back", async () => {
    const asked = gateway({ "POST /v1/feedback": accepted("flag"), "DELETE /v1/feedback": deleted("fb_1") });
    const onSaved = vi.fn();
    render(<FlagDialog completionId="r:0" onClose={vi.fn()} onSaved={onSaved} />);
    expect(screen.getByRole("dialog", { name: "Report this answer" })).toBeTruthy();
    expect(button("Report").disabled).toBe(true);
    fireEvent.click(button("unsafe"));
    fireEvent.change(screen.getByRole("textbox"), { target: { value: "It names a person." } });
    fireEvent.click(button("Report"));
    await says(/^Reported$/);
    expect(bodies(asked)).toEqual([
      ["POST /v1/feedback", { type: "flag", completion_id: "r:0", reasons: ["unsafe"], comment: "It names a person." }],
    ]);
    fireEvent.click(button("Take it back"));
    await says(/^Taken back$/);
    expect(onSaved.mock.calls).toEqual([[true], [false]]);
  });

  it("that stands is shown, can be changed, and taken back", async () => {
    const asked = gateway({ "POST /v1/feedback": accepted("flag", "fb_2"), "DELETE /v1/feedback": deleted("fb_1") });
    const judgement = { type: "flag", completion_id: "r:0", reasons: ["unsafe"], comment: "It names a person." };
    const standing = { id: "fb_1", type: "flag", judgement } as unknown as KeptFeedback;
    render(<FlagDialog completionId="r:0" standing={standing} onClose={vi.fn()} />);
    expect(button("unsafe").getAttribute("aria-pressed")).toBe("true");
    expect(screen.getByRole<HTMLTextAreaElement>("textbox").value).toBe("It names a person.");
    expect(button("Change report")).toBeTruthy();
    fireEvent.click(button("Take it back"));
    await says(/^Taken back$/);
    expect(asked.map(({ path, method }) => `${method} ${path}`)).toEqual(["DELETE /v1/feedback/fb_1"]);
    expect(button("Report")).toBeTruthy();
  });

  it("that was begun over one that stands goes on, and is no draft once it is sent or taken back", async () => {
    const asked = gateway({ "POST /v1/feedback": accepted("flag", "fb_2"), "DELETE /v1/feedback": deleted("fb_2") });
    const judgement = { type: "flag", completion_id: "r:0", reasons: ["unsafe"] };
    const standing = { id: "fb_1", type: "flag", judgement } as unknown as KeptFeedback;
    const begun = { reasons: ["unsafe", "spam"], comment: "It na" };
    const onDraft = vi.fn();
    render(<FlagDialog completionId="r:0" standing={standing} begun={begun} onDraft={onDraft} onClose={vi.fn()} />);
    expect(onDraft).toHaveBeenLastCalledWith(begun);
    fireEvent.click(button("spam"));
    fireEvent.change(screen.getByRole("textbox"), { target: { value: "It names" } });
    expect(onDraft).toHaveBeenLastCalledWith({ reasons: ["unsafe"], comment: "It names" });
    fireEvent.click(button("Change report"));
    await says(/^Reported$/);
    expect(bodies(asked)).toEqual([
      ["POST /v1/feedback", { type: "flag", completion_id: "r:0", reasons: ["unsafe"], comment: "It names" }],
    ]);
    await waitFor(() => expect(onDraft).toHaveBeenLastCalledWith(null));
    fireEvent.click(button("Take it back"));
    await says(/^Taken back$/);
    await waitFor(() => expect(onDraft).toHaveBeenLastCalledWith(null));
  });

  it("that was begun before is sent as it is", async () => {
    const asked = gateway({ "POST /v1/feedback": accepted("flag") });
    render(<FlagDialog completionId="r:0" begun={{ reasons: ["spam"], comment: "" }} onClose={vi.fn()} />);
    fireEvent.click(button("Report"));
    await says(/^Reported$/);
    expect(bodies(asked)).toEqual([["POST /v1/feedback", { type: "flag", completion_id: "r:0", reasons: ["spam"] }]]);
  });

  it("keeps its words where it was not saved, and closes on Escape", async () => {
    gateway({ "POST /v1/feedback": [failure(503, "away")] });
    const onClose = vi.fn();
    render(<FlagDialog completionId="r:0" onClose={onClose} />);
    const words = screen.getByRole<HTMLTextAreaElement>("textbox");
    fireEvent.change(words, { target: { value: "Bad." } });
    fireEvent.keyDown(words, { key: "Enter", ctrlKey: true });
    await says(/^Not saved/);
    expect(words.value).toBe("Bad.");
    fireEvent(screen.getByRole("dialog"), new Event("cancel", { cancelable: true }));
    expect(onClose).toHaveBeenCalledTimes(1);
  });
});

describe("reason chips", () => {
  it("toggle, show what is chosen but not offered, and stop at sixteen", () => {
    const onChange = vi.fn();
    const { rerender } = render(<ReasonChips label="Why" options={["a", "b"]} chosen={["own"]} onChange={onChange} />);
    fireEvent.click(button("a"));
    fireEvent.click(button("own"));
    expect(onChange.mock.calls).toEqual([[["own", "a"]], [[]]]);
    const many = Array.from({ length: 16 }, (_, index) => `reason ${index}`);
    rerender(<ReasonChips label="Why" options={["a"]} chosen={many} onChange={onChange} />);
    expect(button("a").disabled).toBe(true);
    expect(button("reason 3").disabled).toBe(false);
  });
});
