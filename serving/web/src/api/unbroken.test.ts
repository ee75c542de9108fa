import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ApiError, type ServerEvent } from "./client";
import { unbroken } from "./unbroken";

const event = (number: number): ServerEvent => ({ id: String(number), event: "", data: `{"id": "cmp_1"}` });
const wire = (...numbers: number[]) => numbers.map((number) => `id: ${number}\ndata: {"id": "cmp_1"}\n\n`).join("");
const sse = (text: string) => () => new Response(text, { headers: { "content-type": "text/event-stream" } });
const refused = (status: number) => () => new Response("{}", { status });

async function* broken(...events: ServerEvent[]): AsyncGenerator<ServerEvent> {
  yield* events;
  throw new ApiError(0, "The connection broke off.", "stream_broken");
}

let after: string[];
let answers: (() => Response)[];

beforeEach(() => {
  vi.useFakeTimers();
  after = [];
  answers = [];
  vi.stubGlobal("fetch", async (_: string, init: RequestInit) => {
    after.push((init.headers as Record<string, string>)["last-event-id"]!);
    return (answers.shift() ?? refused(503))();
  });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** The numbers of all events, or the status that it ended with. */
async function read(first: AsyncIterable<ServerEvent>): Promise<(string | number)[]> {
  const seen: (string | number)[] = [];
  const all = (async () => {
    const { signal } = new AbortController();
    for await (const { id, data } of unbroken(first, { signal })) seen.push(data === "[DONE]" ? data : id!);
  })().catch((error: ApiError) => seen.push(error.status));
  await vi.runAllTimersAsync();
  await all;
  return seen;
}

test("a resume that is refused for now is tried again, after the last event that was seen", async () => {
  answers = [refused(503), refused(429), sse(wire(2)), sse(wire(3) + "data: [DONE]\n\n")];
  expect(await read(broken(event(1)))).toEqual(["1", "2", "3", "[DONE]"]);
  expect(after).toEqual(["1", "1", "1", "2"]);
});

test("six resumes that bring nothing are enough, and each event counts anew", async () => {
  answers = [...Array.from({ length: 5 }, () => refused(503)), sse(wire(2))];
  expect(await read(broken(event(1)))).toEqual(["1", "2", 503]);
  expect(after).toEqual([...Array.from({ length: 6 }, () => "1"), ...Array.from({ length: 6 }, () => "2")]);
});

test("it waits twice as long each time", async () => {
  const began = Date.now();
  await read(broken(event(1)));
  expect(Date.now() - began).toBe(500 + 1000 + 2000 + 4000 + 8000 + 8000);
});

test("what has no name yet is not resumed, nor what is gone", async () => {
  expect(await read(broken())).toEqual([0]);
  expect(after).toEqual([]);
  answers = [refused(404)];
  expect(await read(broken(event(1)))).toEqual(["1", 404]);
  expect(after).toEqual(["1"]);
});
