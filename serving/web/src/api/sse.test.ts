import { expect, test } from "vitest";
import { eventsOf, SseParser } from "./sse";

const STREAM = ': ping\n\nid: 1\ndata: {"a":"ä😀"}\n\nevent: odd\r\ndata: one\r\ndata:two\r\n\r\nid: 3\ndata: [DONE]\n\n';
const EVENTS = [
  { id: "1", event: "message", data: '{"a":"ä😀"}' },
  { id: "1", event: "odd", data: "one\ntwo" },
  { id: "3", event: "message", data: "[DONE]" },
];

test("text cut at any two places gives the same events", () => {
  for (let first = 0; first <= STREAM.length; first++) {
    for (let second = first; second <= STREAM.length; second++) {
      const parser = new SseParser();
      const pieces = [STREAM.slice(0, first), STREAM.slice(first, second), STREAM.slice(second)];
      expect(pieces.flatMap((piece) => parser.push(piece))).toEqual(EVENTS);
    }
  }
});

test("bytes cut inside a character are put together again", async () => {
  const bytes = new TextEncoder().encode(STREAM);
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  const events = [];
  for await (const event of eventsOf(body)) events.push(event);
  expect(events).toEqual(EVENTS);
});

test("comments and an event that was not completed are none", () => {
  const parser = new SseParser();
  expect(parser.push(": ping\n\n: ping\n\ndata: half")).toEqual([]);
});
