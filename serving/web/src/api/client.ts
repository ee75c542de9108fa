/**
 * The one way from the page to the gateway's public API.
 *
 *   get/post/put/del<T>(path, ...)      JSON in and out; throws ApiError, also when the network fails (status 0)
 *   stream(path, body, signal)          POST, then each ServerEvent as it comes; throws ApiError
 *   resume(path, lastEventId, signal)   the same for GET with Last-Event-ID
 *   chunks(events)                      ChatChunks of a stream; throws ApiError for an error event and for a
 *                                       stream that breaks off without [DONE] (code "stream_broken")
 *   session, conversations, chats, feedback, comparisons, me: the routes, by what they are about
 *   explain(error)                      what to tell a person
 *   newClientId()                       for NewFeedback.client_id
 *
 * The types are in ./types, the parser of server-sent events in ./sse.
 */
import { eventsOf, type ServerEvent } from "./sse";
import type {
  Accepted,
  ChatChunk,
  ChatRequest,
  ComparisonRequest,
  Conversation,
  DeletedConversation,
  DeletedMe,
  KeptFeedback,
  Me,
  Message,
  NewFeedback,
  Page,
  Session,
  ShownComparison,
  StoredChat,
  Tree,
} from "./types";

export * from "./types";
export type { ServerEvent } from "./sse";

/** A failure as the API tells it, or with status 0 one on the way there. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly code: string | null = null,
    readonly param: string | null = null,
    /** Seconds after which it may succeed. */
    readonly retryAfter: number | null = null,
    readonly requestId: string | null = null,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** Nothing was wrong with the request: the same may succeed soon. */
  get passing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

interface Options {
  query?: Record<string, string | number | boolean | undefined>;
  signal?: AbortSignal;
  headers?: Record<string, string>;
  /** Goes on when the page is left. */
  keepalive?: boolean;
}

// No other origin can send it, since the gateway allows none: so a request by cookie is known to be the page's own.
const PAGE = { "x-ratchet-page": "1" };

async function send(method: string, path: string, body: unknown, options: Options = {}): Promise<Response> {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(options.query ?? {})) {
    if (value !== undefined) query.set(name, String(value));
  }
  const init: RequestInit = {
    method,
    credentials: "same-origin",
    cache: "no-store",
    headers: { ...PAGE, ...(body === undefined ? {} : { "content-type": "application/json" }), ...options.headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    ...(options.signal ? { signal: options.signal } : {}),
    ...(options.keepalive ? { keepalive: true } : {}),
  };
  let response: Response;
  try {
    response = await fetch(query.size ? `${path}?${query}` : path, init);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "The server cannot be reached.", "unreachable");
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response: Response): Promise<ApiError> {
  const facts = await response.json().then(
    (body: { error?: { message?: string; code?: string | number | null; param?: string | null } }) => body?.error,
    () => undefined,
  );
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  return new ApiError(
    response.status,
    facts?.message ?? `The server answered ${response.status}.`,
    facts?.code == null ? null : String(facts.code),
    facts?.param ?? null,
    Number.isFinite(seconds) ? seconds : null,
    response.headers.get("x-request-id"),
  );
}

async function json<T>(method: string, path: string, body?: unknown, options?: Options): Promise<T> {
  const response = await send(method, path, body, options);
  if (response.status === 204) return undefined as T;
  try {
    return (await response.json()) as T;
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new ApiError(0, "The answer of the server broke off.", "answer_broken");
  }
}

export const get = <T>(path: string, options?: Options) => json<T>("GET", path, undefined, options);
export const post = <T>(path: string, body: unknown, options?: Options) => json<T>("POST", path, body, options);
export const put = <T>(path: string, body: unknown, options?: Options) => json<T>("PUT", path, body, options);
export const del = <T>(path: string, options?: Options) => json<T>("DELETE", path, undefined, options);

export async function* stream(path: string, body: unknown, signal?: AbortSignal): AsyncGenerator<ServerEvent> {
  yield* followed(await send("POST", path, body, signal ? { signal } : {}), signal);
}

export async function* resume(path: string, lastEventId: string, signal?: AbortSignal): AsyncGenerator<ServerEvent> {
  const headers = { "last-event-id": lastEventId };
  yield* followed(await send("GET", path, undefined, { headers, ...(signal ? { signal } : {}) }), signal);
}

async function* followed(response: Response, signal?: AbortSignal): AsyncGenerator<ServerEvent> {
  try {
    yield* eventsOf(response.body!);
  } catch (error) {
    if (signal?.aborted || error instanceof ApiError) throw error;
    throw new ApiError(0, "The connection broke off.", "stream_broken");
  }
}

export interface NumberedChunk {
  chunk: ChatChunk;
  /** For Last-Event-ID; null unless the stream is resumable. */
  id: string | null;
}

export async function* chunks(events: AsyncIterable<ServerEvent>): AsyncGenerator<NumberedChunk> {
  for await (const { id, data } of events) {
    if (data === "[DONE]") return;
    const body = JSON.parse(data);
    if (body.error) {
      const { message, code, param } = body.error;
      throw new ApiError(503, String(message), code == null ? null : String(code), param ?? null);
    }
    yield { chunk: body as ChatChunk, id };
  }
  throw new ApiError(0, "The connection broke off.", "stream_broken");
}

const segment = encodeURIComponent;

export const session = {
  current: () => get<Session>("/v1/session"),
  singleUser: () => post<Session>("/v1/session", {}),
  withKey: (key: string) => post<Session>("/v1/session", { key }),
  withInvite: (invite: string) => post<Session>("/v1/session", { invite }),
  end: () => del<unknown>("/v1/session"),
};

export const conversations = {
  list: (after?: string, limit = 50) => get<Page<Conversation>>("/v1/conversations", { query: { after, limit } }),
  /** Those with all these words in their titles: each page looks at some titles, and may be short or empty. */
  search: (q: string, after?: string) =>
    get<Page<Conversation>>("/v1/conversations", { query: { q, after, limit: 100 } }),
  get: (id: string) => get<Conversation>(`/v1/conversations/${segment(id)}`),
  tree: (id: string, signal?: AbortSignal) =>
    get<Tree>(`/v1/conversations/${segment(id)}/tree`, signal ? { signal } : {}),
  branch: (id: string, head?: string) =>
    get<{ head: string; data: Message[] }>(`/v1/conversations/${segment(id)}/messages`, { query: { head } }),
  change: (id: string, changes: Partial<Pick<Conversation, "title" | "allow_training" | "head">>) =>
    put<Conversation>(`/v1/conversations/${segment(id)}`, changes, { keepalive: true }),
  delete: (id: string) => del<DeletedConversation>(`/v1/conversations/${segment(id)}`),
};

export const chats = {
  /** Resumable: its events have numbers, and `resume` goes on after one. */
  ask: (request: ChatRequest, signal?: AbortSignal) =>
    stream("/v1/chat/completions", { ...request, stream: true, stream_options: { resumable: true } }, signal),
  resume: (responseId: string, lastEventId: string, signal?: AbortSignal) =>
    resume(`/v1/chat/completions/${segment(responseId)}/stream`, lastEventId, signal),
  cancel: (responseId: string) => post<unknown>(`/v1/chat/completions/${segment(responseId)}/cancel`, {}),
  get: (responseId: string) => get<StoredChat>(`/v1/chat/completions/${segment(responseId)}`),
};

export const feedback = {
  give: (judgement: NewFeedback) => post<Accepted>("/v1/feedback", judgement),
  list: (query: { after?: string; limit?: number; type?: string; completion_id?: string } = {}) =>
    get<Page<KeptFeedback>>("/v1/feedback", { query }),
  get: (id: string) => get<KeptFeedback & { history: KeptFeedback[] }>(`/v1/feedback/${segment(id)}`),
  takeBack: (id: string) => del<{ id: string; deleted: true }>(`/v1/feedback/${segment(id)}`),
};

export const comparisons = {
  /** All slots at once: choice i is slot i. */
  ask: (request: ComparisonRequest, signal?: AbortSignal) =>
    stream("/v1/comparisons", { ...request, stream: true, stream_options: { resumable: true } }, signal),
  get: (id: string) => get<ShownComparison>(`/v1/comparisons/${segment(id)}`),
  repeat: () => post<ShownComparison>("/v1/comparisons", { repeat: true }),
};

export const me = {
  get: () => get<Me>("/v1/me"),
  exportUrl: "/v1/me/export",
  delete: () => del<DeletedMe>("/v1/me"),
};

export const newClientId = (): string => `web-${crypto.randomUUID?.() ?? Math.random().toString(36).slice(2)}`;

/** What a person is told, and what they can do. */
export function explain(error: unknown): string {
  if (!(error instanceof ApiError)) return error instanceof Error ? error.message : String(error);
  const wait = error.retryAfter === null ? "" : ` Try again in ${duration(error.retryAfter)}.`;
  switch (error.code) {
    case "unreachable":
      return "The server cannot be reached. Is it running, and are you connected?";
    case "stream_broken":
      return "The connection broke off while the answer was being written.";
    case "rate_limit_exceeded":
      return `Too many requests just now.${wait}`;
    case "quota_exceeded":
      return `Your limit for today is used up.${wait}`;
    case "engine_unavailable":
    case "engine_timeout":
      return `The model is not answering just now.${wait}`;
    case "swap_in_progress":
      return `A new policy is being loaded.${wait}`;
    case "queue_full":
      return `Too many people are waiting for answers.${wait}`;
    case "ledger_unavailable":
      return `What was said cannot be kept just now.${wait}`;
    case "context_length_exceeded":
      return "This conversation has become too long for the model. Begin a new one, or edit an earlier message.";
    case "invalid_api_key":
      return "This key is not valid: it is mistyped, was revoked or has expired.";
    default:
      return error.message + wait;
  }
}

export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.ceil(seconds / 60)} min`;
  return `${Math.ceil(seconds / 3600)} h`;
}
