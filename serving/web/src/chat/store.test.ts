import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ChatStore } from "./store";

const FACTS = { conversation_id: "web-1", completion_ids: ["chatcmpl-1:0"], policy_version: 3 };
const event = (number: number, content: string, more: object = {}) =>
  `id: ${number}\ndata: ${JSON.stringify({
    id: "chatcmpl-1",
    choices: [{ index: 0, delta: { content }, finish_reason: null }],
    ...more,
  })}\n\n`;
const sse = (text: string) => new Response(text, { headers: { "content-type": "text/event-stream" } });
const refusal = (status: number, code: string, headers = {}) =>
  new Response(JSON.stringify({ error: { message: code, code, param: null } }), { status, headers });

let asked: { path: string; init: RequestInit }[];
let answers: (() => Response | Promise<Response>)[];

beforeEach(() => {
  sessionStorage.clear();
  localStorage.clear();
  asked = [];
  answers = [];
  vi.stubGlobal("fetch", async (path: string, init: RequestInit) => {
    asked.push({ path, init });
    const next = answers.shift();
    if (!next) throw new TypeError("no network");
    return next();
  });
});
afterEach(() => vi.unstubAllGlobals());

test("a connection that breaks off is taken up after the last event that was seen", async () => {
  answers = [
    () => sse(event(1, "One ", { ratchet: FACTS }) + event(2, "two ")),
    () => sse(event(3, "three", { ratchet: { ...FACTS, stored: true } }) + "data: [DONE]\n\n"),
  ];
  const store = new ChatStore("web-1", false);
  expect(await store.ask("count")).toBe(true);
  expect(asked.map(({ path }) => path)).toEqual(["/v1/chat/completions", "/v1/chat/completions/chatcmpl-1/stream"]);
  expect((asked[1]!.init.headers as Record<string, string>)["last-event-id"]).toBe("2");
  const node = store.state.nodes.get("chatcmpl-1:0")!;
  expect([node.content, node.policy_version, store.state.head]).toEqual(["One two three", 3, "chatcmpl-1:0"]);
  expect(store.state.failure).toBeNull();
  expect(sessionStorage.length).toBe(0);
});

test("the second question repeats the branch, in the same conversation, by the page's own header", async () => {
  answers = [1, 2].map(() => () => sse(event(1, "Yes", { ratchet: FACTS }) + "data: [DONE]\n\n"));
  const store = new ChatStore("web-1", false);
  await store.ask("one");
  await store.ask("two");
  const body = JSON.parse(String(asked[1]!.init.body));
  expect(body.messages).toEqual([
    { role: "user", content: "one" },
    { role: "assistant", content: "Yes" },
    { role: "user", content: "two" },
  ]);
  expect(body.metadata).toEqual({ conversation_id: "web-1" });
  expect(body.stream_options).toEqual({ resumable: true });
  expect((asked[1]!.init.headers as Record<string, string>)["x-ratchet-page"]).toBe("1");
});

test("what was refused can be tried again, and its words are given back", async () => {
  answers = [() => refusal(429, "rate_limit_exceeded", { "retry-after": "7" })];
  const store = new ChatStore("web-1", false);
  expect(await store.ask("hello")).toBe(false);
  expect(store.state.failure).toMatchObject({ error: { status: 429, retryAfter: 7 }, draft: "hello" });
  expect(store.state.status).toBe("new");
  answers = [() => sse(event(1, "Hi", { ratchet: FACTS }) + "data: [DONE]\n\n")];
  await store.retry();
  expect([...store.state.nodes.values()].map((node) => node.content)).toEqual(["Hi"]);
  expect(store.state.failure).toBeNull();
});

test("a temporary chat asks for nothing to be kept and remembers nothing", async () => {
  answers = [() => sse(event(1, "Hi", { ratchet: { ...FACTS, stored: false } }) + "data: [DONE]\n\n")];
  const store = new ChatStore("web-1", false);
  store.setTemporary(true);
  await store.ask("hello");
  const body = JSON.parse(String(asked[0]!.init.body));
  expect([body.store, body.metadata]).toEqual([false, undefined]);
  expect(sessionStorage.length + localStorage.length).toBe(0);
});

const card = (allow_training: boolean) => () => Response.json({ id: "web-1", title: "", allow_training });
const tree = (...ids: string[]) => () => {
  const nodes = ids.map((id) => ({ completion_id: id, parent_id: null, new_messages: [], content: "", siblings: [] }));
  return Response.json({ head: ids[0] ?? null, nodes });
};
const changes = () =>
  asked.filter(({ init }) => init.method === "PUT").map(({ init }) => JSON.parse(String(init.body)));

test("a chat that may not be learned from stays so after its first answers were judged", async () => {
  answers = [card(true), tree("a:0", "a:1"), card(true), card(false)];
  const store = new ChatStore("web-1", false);
  await store.allowTrainingOf(false);
  expect(await store.goOnFrom("a:1")).toBe(true);
  expect([store.state.allowTraining, store.state.head]).toEqual([false, "a:1"]);
  expect(changes()).toEqual([{ head: "a:1" }, { allow_training: false }]);
});

test("a chat that may not be learned from stays so after an answer that broke off", async () => {
  const broken = `data: ${JSON.stringify({ error: { message: "gone", code: "engine_unavailable" } })}\n\n`;
  answers = [() => sse(event(1, "One ", { ratchet: FACTS }) + broken), card(true), tree("chatcmpl-1:0"), card(false)];
  const store = new ChatStore("web-1", false);
  await store.allowTrainingOf(false);
  await store.ask("count");
  expect(store.state.allowTraining).toBe(false);
  expect(changes()).toEqual([{ allow_training: false }]);
  expect(store.state.failure).toMatchObject({ error: { message: "gone" } });
});

test("it is said when the server was not told that a chat may not be learned from", async () => {
  answers = [card(true), tree("a:0"), card(true), () => refusal(503, "ledger_unavailable")];
  const store = new ChatStore("web-1", false);
  await store.allowTrainingOf(false);
  await store.goOnFrom("a:0");
  const { error } = store.state.failure as { error: Error };
  expect(error.message).toContain("could not be changed");
});

test("the chat does not go on from a winner that could not be loaded", async () => {
  answers = [() => refusal(503, "x"), () => refusal(503, "x")];
  const store = new ChatStore("web-1", false);
  expect(await store.goOnFrom("a:0")).toBe(false);
  answers = [card(true), tree("a:1")];
  expect(await store.goOnFrom("a:0")).toBe(false);
  answers = [card(true), tree("a:1", "a:0"), card(true)];
  expect(await store.goOnFrom("a:0")).toBe(true);
});

test("a conversation that could not be loaded is loaded again, and goes on with what was being written", async () => {
  const pending = { conversationId: "web-1", responseId: "chatcmpl-1", lastEventId: "1", parent: null, messages: [] };
  sessionStorage.setItem("ratchet.streams", JSON.stringify({ "web-1": pending }));
  answers = [() => refusal(503, "x"), () => refusal(503, "x")];
  const store = new ChatStore("web-1", true);
  await store.open();
  expect([store.state.status, store.state.writing, asked.length]).toEqual(["loading", null, 2]);
  answers = [card(true), tree("a:0"), () => sse(event(1, "Yes", { ratchet: FACTS }) + "data: [DONE]\n\n")];
  await store.retry();
  expect([store.state.status, store.state.failure, [...store.state.nodes.keys()]]).toEqual([
    "ready",
    null,
    ["a:0", "chatcmpl-1:0"],
  ]);
});

test("of a first answer of which nothing was kept, the question can be asked again", async () => {
  const broken = `data: ${JSON.stringify({ error: { message: "gone", code: "engine_unavailable" } })}\n\n`;
  const missing = () => refusal(404, "conversation_not_found");
  answers = [() => sse(event(1, "") + broken), missing, missing];
  const store = new ChatStore("web-1", false);
  await store.ask("count");
  expect([store.state.status, store.state.failure?.draft]).toEqual(["new", "count"]);
});

test("who asks again while it is looked up what is kept of a broken answer, gets that one", async () => {
  const broken = `data: ${JSON.stringify({ error: { message: "gone", code: "engine_unavailable" } })}\n\n`;
  const done = "data: [DONE]\n\n";
  let tell!: () => void;
  const told = new Promise<void>((resolve) => (tell = resolve));
  const missing = () => told.then(() => refusal(404, "conversation_not_found"));
  answers = [() => sse(event(1, "One") + broken), missing, missing, () => sse(event(1, "Two", { ratchet: FACTS }) + done)];
  const store = new ChatStore("web-1", false);
  const first = store.ask("count");
  await vi.waitFor(() => expect(store.state.failure?.shown).toBe("One"));
  await store.retry();
  tell();
  await first;
  expect([store.state.failure, store.state.nodes.get("chatcmpl-1:0")?.content]).toEqual([null, "Two"]);
});

test("what was seen of an answer that its engine broke off stays in sight, and can be asked for again", async () => {
  const broken = `data: ${JSON.stringify({ error: { message: "gone", code: "engine_unavailable" } })}\n\n`;
  answers = [card(true), tree("a:0"), () => sse(event(1, "One two", { ratchet: FACTS }) + broken), card(true), tree("a:0")];
  const store = new ChatStore("web-1", true);
  await store.open();
  const seen: (string | undefined)[] = [];
  store.subscribe(() => seen.push(store.state.writing?.text ?? store.state.failure?.shown));
  await store.ask("count");
  expect(seen.at(-1)).toBe("One two");
  expect(new Set(seen.slice(seen.indexOf("One two")))).toEqual(new Set(["One two"]));
  expect(store.state.failure).toMatchObject({ retry: { parent: "a:0" }, draft: "count", shown: "One two" });
});

test("what is done here while it is asked what was done elsewhere is not undone by that", async () => {
  answers = [card(true), tree("a:0"), card(true), tree("a:0", "b:0"), card(false)];
  const store = new ChatStore("web-1", true);
  await store.open();
  const looked = store.catchUp();
  await store.allowTrainingOf(false);
  await looked;
  expect([store.state.allowTraining, [...store.state.nodes.keys()]]).toEqual([false, ["a:0"]]);
  answers = [card(true), tree("a:0", "b:0")]; // the server may not know of it yet
  await store.catchUp();
  expect([store.state.allowTraining, [...store.state.nodes.keys()]]).toEqual([false, ["a:0", "b:0"]]);
  await store.catchUp(); // nothing answers
  expect(store.state.failure).toBeNull();
  answers = [card(true), tree("c:0")]; // what is in sight is kept nowhere
  await store.catchUp();
  expect(store.state.head).toBe("a:0");
});
