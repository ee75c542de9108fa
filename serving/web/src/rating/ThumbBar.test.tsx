import { fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { KeptFeedback } from "../api/client";
import { accepted, bodies, deleted, failure, gateway, json, Later } from "./gateway_double";
import { ThumbBar } from "./ThumbBar";

const ID = "chatcmpl-0199c2:0";
const up = () => screen.getByRole("button", { name: "Good answer" });
const down = () => screen.getByRole("button", { name: "Bad answer" });
const pressed = (button: HTMLElement) => button.getAttribute("aria-pressed");
const says = (words: string | RegExp) => waitFor(() => expect(screen.getByRole("status").textContent).toMatch(words));

afterEach(() => vi.unstubAllGlobals());

describe("a thumb", () => {
  it("says saved only once the server has it", async () => {
    const later = new Later();
    const asked = gateway({ "POST /v1/feedback": [later.answer] });
    render(<ThumbBar completionId={ID} />);
    fireEvent.click(up());
    expect(pressed(up())).toBe("true");
    await says("Saving…");
    later.resolve(accepted("rating"));
    await says(/^Saved$/);
    expect(bodies(asked)).toEqual([["POST /v1/feedback", { type: "rating", completion_id: ID, value: 1 }]]);
    expect(asked[0]!.body!.client_id).toBeTypeOf("string");
  });

  it("is taken back by a second click", async () => {
    const asked = gateway({ "POST /v1/feedback": accepted("rating", "fb_7"), "DELETE /v1/feedback": deleted("fb_7") });
    const saved = vi.fn();
    render(<ThumbBar completionId={ID} onSaved={saved} />);
    fireEvent.click(up());
    await says(/^Saved$/);
    fireEvent.click(up());
    expect(pressed(up())).toBe("false");
    await says("Taken back");
    expect(asked[1]).toMatchObject({ method: "DELETE", path: "/v1/feedback/fb_7" });
    expect(saved.mock.calls).toEqual([[1], [null]]);
  });

  it("is not given by a key where single keys are turned off", () => {
    localStorage.setItem("ratchet.single_keys", "off");
    const asked = gateway({ "POST /v1/feedback": accepted("rating") });
    render(<ThumbBar completionId={ID} hotkeys />);
    fireEvent.keyDown(document.body, { key: "+" });
    localStorage.clear();
    expect(asked).toEqual([]);
    fireEvent.keyDown(document.body, { key: "+" });
    expect(asked).toHaveLength(1);
  });

  it("keeps reasons and comment as revisions", async () => {
    const asked = gateway({ "POST /v1/feedback": accepted("rating") });
    render(<ThumbBar completionId={ID} />);
    fireEvent.click(down());
    await says(/^Saved$/);
    fireEvent.click(screen.getByRole("button", { name: "too long" }));
    await waitFor(() => expect(asked).toHaveLength(2));
    await says(/^Saved$/);
    const comment = screen.getByRole("textbox", { name: /Comment/ });
    fireEvent.change(comment, { target: { value: "One sentence would do." } });
    expect(screen.getByText("Not sent yet")).toBeTruthy();
    fireEvent.keyDown(comment, { key: "Enter", ctrlKey: true });
    await waitFor(() => expect(screen.queryByText("Not sent yet")).toBeNull());
    await says(/^Saved$/);
    const rating = { type: "rating", completion_id: ID, value: -1 };
    expect(bodies(asked).map(([, body]) => body)).toEqual([
      rating,
      { ...rating, reasons: ["too long"] },
      { ...rating, reasons: ["too long"], comment: "One sentence would do." },
    ]);
  });

  it("sends the latest of what was clicked while it was saving, and no more", async () => {
    const later = new Later();
    const asked = gateway({ "POST /v1/feedback": [later.answer, accepted("rating", "fb_2")] });
    render(<ThumbBar completionId={ID} />);
    fireEvent.click(up());
    fireEvent.click(down());
    fireEvent.click(up());
    fireEvent.click(down());
    later.resolve(accepted("rating"));
    await says(/^Saved$/);
    expect(asked.map(({ body }) => body!.value)).toEqual([1, -1]);
  });

  it("says what went wrong, keeps what was entered, and tries again under the same id", async () => {
    const unavailable = failure(503, "the ledger is away", "ledger_unavailable");
    const asked = gateway({ "POST /v1/feedback": [unavailable, accepted("rating")] });
    const saved = vi.fn();
    render(<ThumbBar completionId={ID} onSaved={saved} />);
    fireEvent.click(down());
    await says(/Not saved/);
    expect(pressed(down())).toBe("true");
    expect(saved).not.toHaveBeenCalled();
    fireEvent.click(screen.getByRole("button", { name: "Try again" }));
    await says(/^Saved$/);
    expect(asked[1]!.body).toEqual(asked[0]!.body);
  });

  it("finds a vote whose answer was lost before it takes it back", async () => {
    const lost = new Later();
    const asked = gateway({
      "POST /v1/feedback": [lost.answer, accepted("rating", "fb_9")],
      "DELETE /v1/feedback": deleted("fb_9"),
    });
    render(<ThumbBar completionId={ID} />);
    fireEvent.click(up());
    lost.reject(new TypeError("connection reset"));
    await says(/Not saved/);
    fireEvent.click(up());
    await says("Taken back");
    expect(asked.map(({ method }) => method)).toEqual(["POST", "POST", "DELETE"]);
    expect(asked[1]!.body).toEqual(asked[0]!.body);
    expect(asked[2]!.path).toBe("/v1/feedback/fb_9");
  });

  it("does not ask again for what was refused for good", async () => {
    const refused = failure(404, "No completion.", "completion_not_found");
    const asked = gateway({ "POST /v1/feedback": [refused] });
    render(<ThumbBar completionId={ID} />);
    fireEvent.click(up());
    await says(/No completion/);
    fireEvent.click(up());
    await says("Taken back");
    expect(asked).toHaveLength(1);
  });

  it("is no success where it was replaced elsewhere", async () => {
    gateway({ "POST /v1/feedback": json({ object: "feedback", id: "fb_1", type: "rating", status: "replaced" }) });
    render(<ThumbBar completionId={ID} />);
    fireEvent.click(up());
    await says(/Not saved\. It was changed or deleted elsewhere/);
  });
});

describe("a thumb that stands already", () => {
  const standing = {
    object: "feedback",
    id: "fb_3",
    type: "rating",
    judgement: {
      type: "rating",
      completion_id: ID,
      value: -1,
      metric: null,
      reasons: ["wrong"],
      comment: "It is not.",
    },
    created: 1,
    revision: 1,
    replaces: null,
    status: "accepted",
    learned: [],
  } as KeptFeedback;

  it("is shown with its words and can be taken back", async () => {
    const asked = gateway({ "DELETE /v1/feedback": deleted("fb_3") });
    render(<ThumbBar completionId={ID} standing={standing} />);
    expect(pressed(down())).toBe("true");
    fireEvent.click(screen.getByRole("button", { name: "Your reasons" }));
    expect(pressed(screen.getByRole("button", { name: "wrong" }))).toBe("true");
    expect((screen.getByRole("textbox") as HTMLTextAreaElement).value).toBe("It is not.");
    fireEvent.click(down());
    await says("Taken back");
    expect(bodies(asked)).toEqual([["DELETE /v1/feedback/fb_3"]]);
  });
});

describe("keys", () => {
  it("vote, but not while somebody writes", async () => {
    const asked = gateway({ "POST /v1/feedback": accepted("rating") });
    render(
      <>
        <input aria-label="draft" />
        <ThumbBar completionId={ID} hotkeys />
      </>,
    );
    fireEvent.keyDown(screen.getByLabelText("draft"), { key: "+" });
    expect(asked).toEqual([]);
    fireEvent.keyDown(document.body, { key: "-" });
    await says(/^Saved$/);
    expect(asked[0]!.body!.value).toBe(-1);
    const group = within(screen.getByRole("group", { name: "Rate this answer" }));
    expect(group.getAllByRole("button").length).toBeGreaterThanOrEqual(2);
  });

  it("do nothing on an answer that is not kept", () => {
    const asked = gateway({});
    render(<ThumbBar completionId={ID} hotkeys notKept />);
    fireEvent.keyDown(document.body, { key: "+" });
    expect((up() as HTMLButtonElement).disabled).toBe(true);
    expect(asked).toEqual([]);
  });

  it("goes on with a comment that was begun, until it is sent or the vote taken back", async () => {
    const answers = [failure(503, "Not now."), accepted("rating")];
    gateway({ "POST /v1/feedback": answers, "DELETE /v1/feedback": deleted("fb_1") });
    const onDraft = vi.fn();
    const standing = { id: "fb_1", type: "rating", judgement: { value: -1, comment: "Tea" } } as unknown as KeptFeedback;
    render(<ThumbBar completionId={ID} standing={standing} begun="Tea is" onDraft={onDraft} />);
    const comment = screen.getByLabelText<HTMLTextAreaElement>("Comment, optional");
    expect(comment.value).toBe("Tea is");
    expect(onDraft.mock.calls).toEqual([["Tea is"]]);
    fireEvent.change(comment, { target: { value: "Tea is green" } });
    fireEvent.click(screen.getByRole("button", { name: "Send comment" }));
    await says(/^Not saved/);
    expect(onDraft).toHaveBeenLastCalledWith("Tea is green"); // not before the ledger has it
    fireEvent.click(screen.getByRole("button", { name: "Try again" }));
    await says(/^Saved/);
    expect(onDraft).toHaveBeenLastCalledWith(null);
    fireEvent.change(comment, { target: { value: "Tea is green, mostly" } });
    fireEvent.click(down());
    await says(/^Taken back/);
    expect(onDraft).toHaveBeenLastCalledWith(null);
  });
});
