import { act, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { failure, gateway, json, Later, Streamed } from "../rating/gateway_double";

const JOE = { name: "joe", role: "user", rater: "rater_1", single_user: false };
const ANN = { name: "ann", role: "user", rater: "rater_2", single_user: false };
const PAGE = { object: "list", data: [], has_more: false };
const TALK = { id: "web-1", title: "Tea", allow_training: true };

beforeEach(() => {
  vi.resetModules(); // a page arrives once
  vi.stubGlobal("matchMedia", (query: string) => ({ matches: query === "(hover: hover)" }));
  HTMLDialogElement.prototype.showModal ??= vi.fn(); // jsdom has no modal dialogs
  HTMLDialogElement.prototype.close ??= vi.fn();
  localStorage.clear();
  sessionStorage.clear();
  history.replaceState(null, "", "/");
});
afterEach(() => vi.unstubAllGlobals());

async function arrive(routes: Parameters<typeof gateway>[0]) {
  const asked = gateway({ "GET /v1/session": () => json(JOE), "GET /v1/conversations": () => json(PAGE), ...routes });
  const { App } = await import("./App");
  render(<App />);
  return asked;
}

const drafts = () => Object.keys(localStorage).filter((key) => key.startsWith("ratchet.draft."));

async function signOut() {
  fireEvent.click(await screen.findByText("joe"));
  fireEvent.click(screen.getByText("Sign out"));
}

test("whoever could not be signed out is told so, and stays in", async () => {
  await arrive({ "DELETE /v1/session": () => failure(503, "Not now.") });
  await signOut();
  expect((await screen.findByRole("alert")).textContent).toBe("You are still signed in. Not now.");
  expect(screen.getByText("joe")).toBeTruthy();
});

test("signing out leaves no word of what was written", async () => {
  localStorage.setItem("ratchet.theme", "dark");
  localStorage.setItem("ratchet.draft.web-1", "Dear diary");
  sessionStorage.setItem("ratchet.streams", JSON.stringify({ "web-1": { messages: ["secret"] } }));
  await arrive({ "DELETE /v1/session": () => failure(401, "Signed out.") });
  await signOut();
  await screen.findByLabelText("API key");
  expect([{ ...localStorage }, { ...sessionStorage }]).toEqual([{ "ratchet.theme": "dark" }, {}]);
});

test("on a machine of one user whoever signs out of another key is that user again", async () => {
  await arrive({ "DELETE /v1/session": () => json({}), "POST /v1/session": () => json({ ...ANN, single_user: true }) });
  await signOut();
  fireEvent.click(await screen.findByText("ann"));
  await screen.findByText("My data");
  expect(screen.queryByText("Sign out")).toBeNull();
});

test("an invitation does not change who is signed in without asking", async () => {
  history.replaceState(null, "", "/join#inv_1");
  const asked = await arrive({ "POST /v1/session": () => json(ANN) });
  await screen.findByText("You are signed in as joe. Join as the invited person?");
  expect([location.pathname, location.hash]).toEqual(["/", ""]);
  expect(asked.map(({ method }) => method)).toEqual(["GET"]);
  fireEvent.click(screen.getByText("Join"));
  await screen.findByText("ann");
  expect(asked[1]!.body).toEqual({ invite: "inv_1" });
});

test("who is invited and signed in can stay who they are", async () => {
  history.replaceState(null, "", "/join#inv_1");
  const asked = await arrive({});
  fireEvent.click(await screen.findByText("Stay joe"));
  await screen.findByLabelText("Message");
  expect(asked.some(({ method }) => method === "POST")).toBe(false);
});

test("a conversation that could not be deleted is still there", async () => {
  history.replaceState(null, "", "/chat/web-1");
  localStorage.setItem("ratchet.draft.web-1", "and then");
  let refused = true;
  await arrive({
    "GET /v1/conversations": () => json({ ...PAGE, data: [TALK] }),
    "GET /v1/conversations/web-1": () => json(TALK),
    "GET /v1/conversations/web-1/tree": () => json({ head: null, nodes: [] }),
    "DELETE /v1/conversations/web-1": () => (refused ? failure(503, "Not now.") : json({ restarted: [], learning: [] })),
  });
  const remove = () => {
    fireEvent.click(screen.getByLabelText("More for Tea"));
    fireEvent.click(screen.getByText("Delete…"));
    fireEvent.click(screen.getByText("Delete"));
  };
  await screen.findByLabelText("More for Tea");
  remove();
  await screen.findByText("Not now.");
  expect([location.pathname, localStorage.getItem("ratchet.draft.web-1")]).toEqual(["/chat/web-1", "and then"]);
  refused = false;
  remove();
  await waitFor(() => expect(location.pathname).toBe("/chat"));
  expect(drafts()).toEqual([]);
});

test("whoever deletes a conversation is told which rounds begin again, and which learn from it all the same", async () => {
  const deletions = [{ restarted: [5], learning: [] }, { restarted: [], learning: [5] }].map((facts) => json(facts));
  await arrive({
    "GET /v1/conversations": () => json({ ...PAGE, data: [TALK, { ...TALK, id: "web-2", title: "Milk" }] }),
    "DELETE /v1/conversations": deletions,
  });
  const remove = async (title: string) => {
    fireEvent.click(await screen.findByLabelText(`More for ${title}`));
    fireEvent.click(screen.getByText("Delete…"));
    screen.getByText(/A round of training that has collected some of it begins again without it/);
    fireEvent.click(screen.getByText("Delete"));
  };
  await remove("Tea");
  await screen.findByText(/Round 5 had collected some of it, and collects again without/);
  await remove("Milk");
  await screen.findByText(/Round 5 had begun again twice, and learns from it/);
  fireEvent.click(screen.getByText("OK"));
  expect(screen.queryByText(/Round 5/)).toBeNull();
});

test("what is opened from a menu gives the focus back to what opened the menu", async () => {
  await arrive({});
  const opener = (await screen.findByText("joe")).closest("button")!;
  fireEvent.click(opener);
  expect(document.activeElement?.textContent).toBe("Auto");
  fireEvent.click(screen.getByText("Keyboard shortcuts"));
  fireEvent.click(await screen.findByLabelText("Close"));
  expect(document.activeElement).toBe(opener);
});

test("single-key shortcuts can be turned off, and others still work", async () => {
  await arrive({});
  fireEvent.click(await screen.findByText("joe"));
  fireEvent.click(screen.getByRole("switch", { name: /Single-key/ }));
  fireEvent.keyDown(document.body, { key: "?" });
  expect(screen.queryByLabelText("Close")).toBeNull();
  fireEvent.click(screen.getByRole("switch", { name: /Single-key/ }));
  expect(localStorage.getItem("ratchet.single_keys")).toBeNull();
  fireEvent.keyDown(document.body, { key: "?" });
  expect(await screen.findByLabelText("Close")).toBeTruthy();
});

test("after erasing everything nothing of it is shown again, and no draft is left", async () => {
  history.replaceState(null, "", "/chat/web-1");
  localStorage.setItem("ratchet.draft.web-1", "and then");
  const node = { completion_id: "a:0", parent_id: null, new_messages: [], content: "Green.", siblings: [] };
  const kept = { conversations: 1, completions: 1, feedback: 0, learned: { rounds: [], policies: [] }, restarted: [] };
  let erased = false;
  const unless = (body: object) => () => (erased ? failure(404, "No conversation.") : json(body));
  await arrive({
    "GET /v1/conversations/web-1": unless(TALK),
    "GET /v1/conversations/web-1/tree": unless({ head: "a:0", nodes: [node] }),
    "GET /v1/feedback": () => json(PAGE),
    "DELETE /v1/me": () => ((erased = true), json(kept)),
  });
  await screen.findByText("Green.");
  fireEvent.click(screen.getByText("joe"));
  fireEvent.click(screen.getByText("My data"));
  fireEvent.change(await screen.findByLabelText(/to confirm/), { target: { value: "delete everything" } });
  fireEvent.click(screen.getByText("Erase everything", { selector: "button" }));
  await waitFor(() => expect(location.pathname).toBe("/chat"));
  expect(drafts()).toEqual([]);
  history.replaceState(null, "", "/chat/web-1");
  fireEvent.popState(window);
  await screen.findByText(/There is no such conversation/);
  expect(screen.getByLabelText<HTMLButtonElement>("Send").disabled).toBe(true);
});

test("what is taken back in one's data stands no more in the chat behind it", async () => {
  history.replaceState(null, "", "/chat/web-1");
  const node = { completion_id: "a:0", parent_id: null, new_messages: [], content: "Green.", siblings: [] };
  const judgement = { type: "rating", completion_id: "a:0", value: 1, comment: "Yes." };
  const thumb = { id: "fb_1", type: "rating", judgement, created: 1767225600, learned: [] };
  let stands = true;
  const asked = await arrive({
    "GET /v1/conversations/web-1": () => json(TALK),
    "GET /v1/conversations/web-1/tree": () => json({ head: "a:0", nodes: [node] }),
    "GET /v1/feedback": () => json({ ...PAGE, data: stands ? [thumb] : [] }),
    "DELETE /v1/feedback/fb_1": () => ((stands = false), json({ id: "fb_1", deleted: true })),
  });
  const pressed = async () => (await screen.findByLabelText("Good answer")).getAttribute("aria-pressed");
  expect(await pressed()).toBe("true");
  fireEvent.click(screen.getByText("Your reasons"));
  fireEvent.change(screen.getByLabelText("Comment, optional"), { target: { value: "Yes!" } });
  fireEvent.click(screen.getByText("joe"));
  fireEvent.click(screen.getByText("My data"));
  fireEvent.click(await screen.findByLabelText("Take back: Thumb up"));
  await screen.findByText("Taken back");
  await waitFor(async () => expect(await pressed()).toBe("false"));
  expect(screen.queryByText("Send comment")).toBeNull();
  expect(asked.some(({ method }) => method === "POST")).toBe(false);
});

test("a conversation whose first answer is being written is in the list already", async () => {
  const answer = new Streamed();
  await arrive({ "POST /v1/chat/completions": answer.response, "PUT /v1/conversations": () => json(TALK) });
  const field = await screen.findByLabelText("Message");
  fireEvent.change(field, { target: { value: "Why is tea green?" } });
  fireEvent.keyDown(field, { key: "Enter" });
  answer.text(0, "Well");
  const link = await screen.findByRole("link", { name: /Why is tea green/ });
  fireEvent.click(screen.getByTitle("New conversation (Ctrl Shift O)"));
  fireEvent.click(link);
  await screen.findByText("Well");
});

test("a list that was asked for earlier and comes later hides nothing", async () => {
  const answer = new Streamed();
  const [before, after] = [new Later(), new Later()];
  const asked = await arrive({
    "POST /v1/chat/completions": answer.response,
    "GET /v1/conversations": [json(PAGE), before.answer, after.answer],
    "GET /v1/feedback": () => json(PAGE),
  });
  const lists = () => asked.filter(({ path }) => path.startsWith("/v1/conversations?")).length;
  const field = await screen.findByLabelText("Message");
  fireEvent.change(field, { target: { value: "Tea?" } });
  fireEvent.keyDown(field, { key: "Enter" });
  answer.text(0, "Green.");
  await waitFor(() => expect(lists()).toBe(2));
  answer.finish(0, { conversation_id: "web-1", completion_ids: ["cmp_1:0"] });
  answer.end();
  await waitFor(() => expect(lists()).toBe(3));
  after.resolve(json({ ...PAGE, data: [TALK] }));
  await screen.findByRole("link", { name: "Tea" });
  before.resolve(json(PAGE));
  await act(() => before.answer);
  expect(screen.getByRole("link", { name: "Tea" })).toBeTruthy();
});

test("more conversations are those after the place where the list ended, not after one that may be gone", async () => {
  const page = (data: object[], last_id: string, has_more: boolean) => json({ ...PAGE, data, last_id, has_more });
  const asked = await arrive({
    "GET /v1/conversations": [
      page([TALK], "20.5:web-1", true),
      page([{ ...TALK, id: "web-0", title: "Milk" }], "10.5:web-0", true),
      page([{ ...TALK, id: "web", title: "Salt" }], "5.5:web", false),
    ],
  });
  for (const title of ["Milk", "Salt"]) {
    fireEvent.click(await screen.findByText("Older conversations"));
    await screen.findByText(title);
  }
  const lists = asked.filter(({ path }) => path.startsWith("/v1/conversations?"));
  const places = lists.map(({ path }) => new URL(path, "http://x").searchParams.get("after"));
  expect(places).toEqual([null, "20.5:web-1", "10.5:web-0"]);
});

test("an expired session leaves what one was writing", async () => {
  localStorage.setItem("ratchet.draft.new", "half a thought");
  await arrive({ "GET /v1/conversations": () => failure(401, "Expired.") });
  await screen.findByText(/what you were writing is kept/);
  expect(localStorage.getItem("ratchet.draft.new")).toBe("half a thought");
});

test("a search goes on for as long as there may be more, and past pages without any", async () => {
  const page = (data: object[], last_id: string | null, has_more: boolean) => json({ ...PAGE, data, last_id, has_more });
  const asked = await arrive({
    "GET /v1/conversations?q=": [
      page([{ ...TALK, id: "web-9", title: "Green tea" }], "web-7", true),
      page([], "web-4", true),
      page([{ ...TALK, id: "web-3", title: "Black tea" }], "web-3", false),
    ],
  });
  fireEvent.change(await screen.findByRole("searchbox"), { target: { value: "tea" } });
  await screen.findByText("Black tea");
  screen.getByText("Green tea");
  const searched = asked.filter(({ path }) => path.includes("q=tea")).map(({ path }) => new URL(path, "http://x"));
  expect(searched.map((url) => url.searchParams.get("after"))).toEqual([null, "web-7", "web-4"]);
});

test("single keys work where a radio has the focus, and not in a field", async () => {
  await arrive({});
  const sheet = () => screen.queryByText("Keyboard shortcuts", { selector: "h2" });
  fireEvent.keyDown(await screen.findByLabelText("Message"), { key: "?" });
  expect(sheet()).toBeNull();
  fireEvent.keyDown(screen.getByLabelText("2 side by side"), { key: "?" });
  expect(sheet()).toBeTruthy();
});

test("over a narrow page the list has the focus, the chat waits, and Esc closes it before it stops an answer", async () => {
  vi.stubGlobal("matchMedia", () => ({ matches: true }));
  const answer = new Streamed();
  const asked = await arrive({ "POST /v1/chat/completions": answer.response });
  const stops = () => asked.filter(({ path }) => path.endsWith("/cancel")).length;
  const field = await screen.findByLabelText("Message");
  fireEvent.change(field, { target: { value: "Tea?" } });
  fireEvent.keyDown(field, { key: "Enter" });
  answer.text(0, "Green.");
  await screen.findByText("Green.");
  const opener = screen.getByRole("button", { name: "Conversations" });
  const behind = () => screen.getByRole("main", { hidden: true }).closest("[inert]");
  opener.focus();
  fireEvent.click(opener);
  expect(document.activeElement).toBe(screen.getByLabelText("Close"));
  expect([opener.getAttribute("aria-expanded"), behind()]).toEqual(["true", expect.anything()]);
  fireEvent.click(screen.getByText("joe"));
  fireEvent.keyDown(document.activeElement!, { key: "Escape" }); // the menu alone
  expect(screen.getByLabelText("Close")).toBeTruthy();
  fireEvent.keyDown(document.activeElement!, { key: "Escape" });
  expect([screen.queryByLabelText("Close"), behind(), stops()]).toEqual([null, null, 0]);
  expect(document.activeElement).toBe(opener);
  fireEvent.keyDown(document.activeElement!, { key: "Escape" });
  await waitFor(() => expect(stops()).toBe(1));
});
