import { fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { accepted, failure, gateway, json, Streamed } from "../rating/gateway_double";
import { ChatPane } from "./ChatPane";
import { ChatStore } from "./store";

const FACTS = { comparison_id: "cmp_1", conversation_id: "web-1", completion_ids: ["cmp_1:0", "cmp_1:1"], stored: true };
const node = (completion_id: string, content: string) => ({
  completion_id, response_id: "cmp_1", choice: 0, parent_id: null, content, policy_version: 3, created: 0,
  new_messages: [{ role: "user", content: "tea?" }], finish_reason: "stop", partial: false, siblings: [],
});
const TREE = { head: "cmp_1:0", nodes: [node("cmp_1:0", "Green."), node("cmp_1:1", "Black.")] };
const CARD = { id: "web-1", title: "tea?", allow_training: true };

beforeEach(() => {
  localStorage.clear();
  sessionStorage.clear();
  vi.stubGlobal("matchMedia", (query: string) => ({ matches: query === "(hover: hover)" }));
  Element.prototype.scrollIntoView = vi.fn(); // jsdom has no layout
});
afterEach(() => vi.unstubAllGlobals());

const field = () => screen.getByLabelText<HTMLTextAreaElement>("Message");
const write = (value: string) => fireEvent.change(field(), { target: { value } });
const send = () => screen.getByLabelText<HTMLButtonElement>("Send");

test("the next question waits until the chat goes on from the answer that was chosen", async () => {
  const streamed = new Streamed();
  const cards = [failure(503, "Not now."), json(CARD)];
  gateway({
    "POST /v1/comparisons": streamed.response,
    "POST /v1/feedback": accepted("comparison", "fb_1", { continue_from: "cmp_1:1", reveal: {} }),
    "GET /v1/conversations/web-1": cards,
    "GET /v1/conversations/web-1/tree": () => json(TREE),
    "PUT /v1/conversations/web-1": () => json(CARD),
    "GET /v1/feedback": () => json({ object: "list", data: [], has_more: false }),
  });
  const store = new ChatStore("web-1", false);
  render(<ChatPane store={store} title="" menu={null} onSignedOut={vi.fn()} />);
  fireEvent.click(screen.getByLabelText("2 side by side"));
  write("tea?");
  fireEvent.keyDown(field(), { key: "Enter" });
  streamed.chunk(
    [0, 1].map((index) => ({ index, delta: { content: "x" }, finish_reason: "stop" })),
    FACTS,
  );
  streamed.end();
  await screen.findByText("The answers are complete.");
  fireEvent.keyDown(document.body, { key: "b" });
  await screen.findByText(/could not go on from what you chose/);
  write("coffee?");
  expect(send().disabled).toBe(true);
  fireEvent.click(screen.getByText("Try again"));
  await waitFor(() => expect(send().disabled).toBe(false));
  expect(store.state.head).toBe("cmp_1:1");
});

test("how many answers one wants outlives a refresh, and a temporary chat, which gives one", async () => {
  const asked = gateway({ "POST /v1/chat/completions": failure(503, "Not now.") });
  const pane = () => render(<ChatPane store={store} title="" menu={null} onSignedOut={vi.fn()} />);
  let store = new ChatStore("web-1", false);
  const first = pane();
  fireEvent.click(screen.getByLabelText("4 to rank"));
  first.unmount();
  store = new ChatStore("web-2", false);
  const second = pane();
  expect(screen.getByLabelText<HTMLInputElement>("4 to rank").checked).toBe(true);
  fireEvent.click(screen.getByLabelText("Temporary"));
  write("tea?");
  fireEvent.click(send());
  await screen.findByText(/Not now/);
  expect(asked.map(({ path }) => path)).toEqual(["/v1/chat/completions"]);
  second.unmount();
  store = new ChatStore("web-3", false);
  pane();
  expect(screen.getByLabelText<HTMLInputElement>("4 to rank").checked).toBe(true);
  fireEvent.click(screen.getByLabelText("1 answer"));
  expect(localStorage.length).toBe(0);
});

test("as many are asked for as one wants to rank, three to eight, and that is kept like the mode", async () => {
  const asked = gateway({ "POST /v1/comparisons": () => new Streamed().response });
  const pane = (id: string) =>
    render(<ChatPane store={new ChatStore(id, false)} title="" menu={null} onSignedOut={vi.fn()} />);
  const count = () => screen.queryByLabelText<HTMLSelectElement>("How many to rank");
  const first = pane("web-1");
  expect(count()).toBeNull();
  fireEvent.click(screen.getByLabelText("4 to rank"));
  expect([...count()!.options].map(({ value }) => value)).toEqual(["3", "4", "5", "6", "7", "8"]);
  fireEvent.change(count()!, { target: { value: "6" } });
  fireEvent.click(screen.getByLabelText("2 side by side"));
  first.unmount();
  const second = pane("web-2");
  fireEvent.click(screen.getByLabelText("6 to rank"));
  write("tea?");
  fireEvent.click(send());
  await screen.findByText("6 answers are being written: 0 finished.");
  expect(asked.map(({ path, body }) => [path, body!["k"]])).toEqual([["/v1/comparisons", 6]]);
  second.unmount();
  localStorage.setItem("ratchet.ranked", "9");
  pane("web-3");
  expect(screen.getByLabelText<HTMLInputElement>("4 to rank").checked).toBe(true);
});

test("an answer that ended at its greatest length says so, as it is written and as it is kept", async () => {
  const answer = new Streamed();
  const kept = { ...node("cmp_1:0", "And so"), finish_reason: "length" };
  gateway({
    "POST /v1/chat/completions": answer.response,
    "GET /v1/conversations/web-2": json({ ...CARD, id: "web-2" }),
    "GET /v1/conversations/web-2/tree": json({ head: "cmp_1:0", nodes: [kept] }),
    "GET /v1/feedback": () => json({ object: "list", data: [], has_more: false }),
  });
  const first = render(<ChatPane store={new ChatStore("web-1", false)} title="" menu={null} onSignedOut={vi.fn()} />);
  write("tea?");
  fireEvent.click(send());
  answer.text(0, "And so");
  await screen.findByText("And so");
  expect(screen.queryByText(/greatest length/)).toBeNull();
  answer.chunk([{ index: 0, delta: {}, finish_reason: "length" }], FACTS);
  answer.end();
  await screen.findByText(/cut off at its greatest length/);
  first.unmount();
  const store = new ChatStore("web-2", true);
  await store.open();
  render(<ChatPane store={store} title="" menu={null} onSignedOut={vi.fn()} />);
  await screen.findByText(/cut off at its greatest length/);
});

test("a screen reader is told that an answer begins, and how long it is once it is finished", async () => {
  const answers = [new Streamed(), new Streamed()];
  gateway({
    "POST /v1/chat/completions": answers.map(({ response }) => response),
    "GET /v1/conversations/web-1": failure(404, "There is none."),
    "GET /v1/feedback": () => json({ object: "list", data: [], has_more: false }),
  });
  render(<ChatPane store={new ChatStore("web-1", false)} title="" menu={null} onSignedOut={vi.fn()} />);
  const spoken = () => document.querySelector("main > [role=status]")!.textContent;
  const ask = async (question: string) => {
    write(question);
    fireEvent.click(send());
    await waitFor(() => expect(spoken()).toBe("The answer is being written."));
  };
  expect(spoken()).toBe("");
  await ask("tea?");
  answers[0]!.text(0, "Green, and mild.", FACTS);
  answers[0]!.finish(0);
  answers[0]!.end();
  await waitFor(() => expect(spoken()).toBe("The answer is finished: 3 words."));
  await ask("milk?");
  answers[1]!.breakOff();
  await waitFor(() => expect(spoken()).toBe("")); // why it failed is an alert
  expect(screen.getByRole("alert")).toBeTruthy();
});

/** A chat that is there, with these answers to "tea?" and what else is asked of the gateway. */
async function open(nodes: object[], routes: Parameters<typeof gateway>[0] = {}) {
  const asked = gateway({
    "GET /v1/conversations/web-1": () => json(CARD),
    "GET /v1/conversations/web-1/tree": () => json({ head: "cmp_1:1", nodes }),
    "PUT /v1/conversations/web-1": () => json(CARD),
    "GET /v1/feedback": () => json({ object: "list", data: [], has_more: false }),
    ...routes,
  });
  const store = new ChatStore("web-1", true);
  await store.open();
  const pane = () => render(<ChatPane store={store} title="" menu={null} onSignedOut={vi.fn()} />);
  return { asked, store, pane };
}

const editor = () => screen.queryByLabelText<HTMLTextAreaElement>("Your question in other words");
const edit = (value: string) => fireEvent.change(editor()!, { target: { value } });

test("a question that is being edited is there after a refresh, at another answer, and until it is discarded", async () => {
  const { pane } = await open(TREE.nodes);
  const first = pane();
  fireEvent.click(screen.getByLabelText("Edit and send again"));
  edit("green tea?");
  fireEvent.click(screen.getByLabelText("Previous answer"));
  expect(editor()!.value).toBe("green tea?");
  first.unmount();
  pane();
  expect(editor()!.value).toBe("green tea?");
  fireEvent.keyDown(editor()!, { key: "Escape" });
  fireEvent.keyDown(screen.getByRole("alertdialog"), { key: "Escape" });
  expect([editor()!.value, document.activeElement]).toEqual(["green tea?", editor()]);
  fireEvent.click(screen.getByText("Cancel"));
  fireEvent.click(screen.getByText("Discard"));
  expect([editor(), sessionStorage.length]).toEqual([null, 0]);
});

test("the words of an edited question that was refused can be changed, and are kept until there is an answer", async () => {
  const answer = new Streamed();
  const refused = failure(400, "Too long.", "context_length_exceeded");
  const { asked, pane } = await open(TREE.nodes, { "POST /v1/chat/completions": [refused, answer.response] });
  pane();
  fireEvent.click(screen.getByLabelText("Edit and send again"));
  edit("a very long question");
  fireEvent.click(screen.getByText("Send"));
  await screen.findByText(/has become too long/);
  expect([editor()!.value, screen.queryByText("Try again")]).toEqual(["a very long question", null]);
  edit("a question");
  fireEvent.click(screen.getByText("Send"));
  await waitFor(() => expect(asked.filter(({ method }) => method === "POST")).toHaveLength(2));
  expect(sessionStorage.getItem("ratchet.words")).toContain("a question");
  answer.text(0, "An answer.", { ...FACTS, completion_ids: ["cmp_2:0"] });
  await screen.findByText("An answer.");
  expect(sessionStorage.getItem("ratchet.words")).toBeNull();
  answer.finish(0);
  answer.end();
  fireEvent.click(await screen.findByLabelText("Previous wording"));
  expect(editor()).toBeNull();
});

test("Enter sends where there are keys, and begins a line where one writes on the screen", async () => {
  for (const [keys, hint] of [[true, "send"], [false, "enter"]] as const) {
    vi.stubGlobal("matchMedia", () => ({ matches: keys }));
    const { asked, pane } = await open(TREE.nodes, { "POST /v1/chat/completions": () => failure(429, "Wait.") });
    const { unmount } = pane();
    fireEvent.click(screen.getByLabelText("Edit and send again"));
    for (const each of [editor()!, field()]) {
      expect(each.getAttribute("enterkeyhint")).toBe(hint);
      fireEvent.change(each, { target: { value: "milk?" } });
      expect(fireEvent.keyDown(each, { key: "Enter" })).toBe(!keys);
      if (keys) await screen.findByText("Wait.");
    }
    expect(asked.filter(({ method }) => method === "POST")).toHaveLength(keys ? 2 : 0);
    unmount();
    sessionStorage.clear();
  }
});

test("whoever leaves an editor is back at what opened it", async () => {
  const { pane } = await open(TREE.nodes);
  pane();
  const escape = () => fireEvent.keyDown(document.activeElement!, { key: "Escape" });
  screen.getByLabelText("Edit and send again").focus();
  fireEvent.click(document.activeElement!);
  escape();
  expect(document.activeElement).toBe(screen.getByLabelText("Edit and send again"));
  field().focus();
  fireEvent.keyDown(field(), { key: "ArrowUp" });
  expect(document.activeElement).toBe(editor());
  escape();
  expect(document.activeElement).toBe(field());
  const pen = screen.getByLabelText("Edit into what it should have been");
  fireEvent.click(pen);
  await waitFor(() => expect(document.activeElement).toBe(screen.getByLabelText("What the answer should have been")));
  escape();
  expect(document.activeElement).toBe(pen);
});

test("of a correction in a chat that may not be learned from, that is said", async () => {
  const { pane } = await open(TREE.nodes, {
    "GET /v1/conversations/web-1": () => json({ ...CARD, allow_training: false }),
    "POST /v1/feedback": () => accepted("demonstration"),
  });
  pane();
  fireEvent.keyDown(document.body, { key: "e" });
  fireEvent.change(await screen.findByLabelText("What the answer should have been"), { target: { value: "Blue." } });
  fireEvent.click(screen.getByText("Save correction"));
  await screen.findByText("Saved. Nothing is learned from this chat.");
});

test("what went on elsewhere is there when one comes back, unless something is open", async () => {
  const nodes = [node("cmp_1:0", "Green.")];
  const { asked, pane, store } = await open(nodes, {
    "GET /v1/conversations/web-1/tree": () => json({ head: nodes.at(-1)!.completion_id, nodes }),
  });
  const loads = () => asked.filter(({ path }) => path.endsWith("/tree")).length;
  const first = pane(); // it is opened once more
  await waitFor(() => expect(loads()).toBe(2));
  fireEvent.click(screen.getByLabelText("Edit and send again"));
  nodes.push({ ...node("cmp_2:0", "Cold."), new_messages: [{ role: "user", content: "milk?" }] });
  fireEvent.focus(window);
  expect(loads()).toBe(2);
  fireEvent.keyDown(editor()!, { key: "Escape" });
  fireEvent.focus(window);
  await screen.findByText("Cold.");
  expect(store.state.head).toBe("cmp_2:0");
  nodes.push({ ...node("cmp_3:0", "Red."), new_messages: [{ role: "user", content: "wine?" }] });
  first.unmount();
  pane();
  await screen.findByText("Red.");
});
