/** The gateway as tests see it: fetch is replaced at the border, after the bodies of the API guide. */

import { vi } from "vitest";

export interface Asked {
  headers: Record<string, string>;
  method: string;
  path: string;
  body: Record<string, unknown> | undefined;
}

export type Answer = Response | Promise<Response>;
export type Route = (asked: Asked) => Answer;

export const json = (body: unknown, status = 200): Response =>
  new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json" } });

export const failure = (status: number, message: string, code: string | null = null): Response =>
  json({ error: { message, type: "invalid_request_error", param: null, code } }, status);

export const accepted = (type: string, id = "fb_1", more: object = {}): Response =>
  json(
    { object: "feedback", id, type, created: 1767225600, revision: 1, status: "accepted", split: "train", ...more },
    201,
  );

export const deleted = (id: string): Response => json({ object: "feedback.deleted", id, deleted: true });

/** Answers by "METHOD /path", exact or by the longest beginning; an array is used up. Returns what was asked. */
export function gateway(routes: Record<string, Route | Answer[] | Response>): Asked[] {
  const asked: Asked[] = [];
  const fetched = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const method = init?.method ?? "GET";
    const body = typeof init?.body === "string" ? (JSON.parse(init.body) as Record<string, unknown>) : undefined;
    const headers = (init?.headers ?? {}) as Record<string, string>;
    const request = { headers, method, path: String(input), body };
    asked.push(request);
    const line = `${method} ${request.path}`;
    const key = Object.keys(routes)
      .filter((route) => line.startsWith(route))
      .sort((one, other) => other.length - one.length)[0];
    if (key === undefined) throw new TypeError(`nothing answers ${line}`);
    const route = routes[key]!;
    if (Array.isArray(route)) return route.shift() ?? Promise.reject(new TypeError(`no answer left to ${line}`));
    return route instanceof Response ? route.clone() : route(request);
  };
  vi.stubGlobal("fetch", vi.fn(fetched));
  return asked;
}

/** What was asked, without the client ids, which are drawn. */
export const bodies = (asked: Asked[]) =>
  asked.map(({ method, path, body }) => {
    const { client_id: _, shown_at: __, answered_at: ___, ...rest } = body ?? {};
    return body ? [`${method} ${path}`, rest] : [`${method} ${path}`];
  });

export class Later {
  resolve!: (response: Response) => void;
  reject!: (error: Error) => void;
  readonly answer = new Promise<Response>((resolve, reject) => {
    this.resolve = resolve;
    this.reject = reject;
  });
}

/** A stream that a test writes bit by bit. */
export class Streamed {
  private controller!: ReadableStreamDefaultController<Uint8Array>;
  readonly response = new Response(
    new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.controller = controller;
      },
    }),
    { headers: { "content-type": "text/event-stream" } },
  );

  private written = 0;
  private write(data: string): void {
    this.written += 1;
    this.controller.enqueue(new TextEncoder().encode(`id: ${this.written}\ndata: ${data}\n\n`));
  }
  breakOff(): void {
    this.controller.error(new TypeError("connection reset"));
  }
  chunk(choices: object[], ratchet?: object, id = "cmp_1"): void {
    this.write(
      JSON.stringify({ id, object: "chat.completion.chunk", model: "policy", choices, ...(ratchet && { ratchet }) }),
    );
  }
  text(index: number, content: string, ratchet?: object): void {
    this.chunk([{ index, delta: { content }, finish_reason: null }], ratchet);
  }
  finish(index: number, ratchet?: object): void {
    this.chunk([{ index, delta: {}, finish_reason: "stop" }], ratchet);
  }
  fail(message: string): void {
    this.write(JSON.stringify({ error: { message, type: "server_error", param: null, code: "engine_unavailable" } }));
    this.controller.close();
  }
  end(): void {
    this.write("[DONE]");
    this.controller.close();
  }
}
