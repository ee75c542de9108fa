/** What only operators ask for: everybody's judgements, raters and audit; and, for admins, keys and invites. */

import { ApiError, del, get, post, type KeptFeedback, type Message, type Page, type Role } from "./client";

const segment = encodeURIComponent;
/** Who asks may leave before the answer comes. */
const stoppedBy = (signal: AbortSignal | undefined) => (signal ? { signal } : {});

/** A judgement as an operator sees it: with its rater, what drew it, and whether the rater is aside. */
export interface Overseen extends KeptFeedback {
  rater: string;
  split: "train" | "eval";
  /** What a comparison was drawn for; "gold" and "repeat" check their rater. */
  lane: string | null;
  release: number | null;
  circumstances: { shown_at: number | null; answered_at: number | null; presented_order: string[] };
  quarantined: boolean;
  /** Who wrote what it judges, each once; null while that is compared blind. */
  policy_versions: number[] | null;
}

export interface OverseenWhole extends Overseen {
  history: Overseen[];
  /** By completion who wrote it, null for no policy of ours; null as a whole while it is compared blind. */
  written: Record<string, number | null> | null;
}

/** Filters of the list; what is undefined does not filter. Times are Unix seconds. */
export interface Wanted {
  type?: string;
  rater?: string;
  policy_version?: number;
  split?: string;
  lane?: string;
  quarantined?: boolean;
  since?: number;
  until?: number;
}

export const judgements = {
  page: (wanted: Wanted, after: string | undefined, limit: number, signal?: AbortSignal) =>
    get<Page<Overseen>>("/v1/feedback", {
      query: { everybody: true, order: "desc", limit, after, ...wanted },
      ...stoppedBy(signal),
    }),
  get: (id: string, signal?: AbortSignal) => get<OverseenWhole>(`/v1/feedback/${segment(id)}`, stoppedBy(signal)),
};

export const FORMATS = ["ratchet", "arena", "hh", "kto", "oasst", "openai_dpo", "sft", "trl"] as const;

/** Where a file of judgements is to be had. Of the filters it knows the split and the times. */
export function exportUrl(format: string, { split, since, until }: Wanted): string {
  const query = new URLSearchParams({ format });
  if (split) query.set("split", split);
  if (since !== undefined) query.set("since", String(since));
  if (until !== undefined) query.set("until", String(until));
  return `/v1/feedback/export?${query}`;
}

/** What was judged: what was asked, and each answer under its completion's id, in the order of the targets. */
export interface Judged {
  messages: Message[];
  answers: { id: string; text: string }[];
}

interface StoredAnswer {
  id: string;
  choices: { index: number; message: { content: string | null } }[];
  ratchet: { completion_ids: string[] };
}

/** Of answers that were erased nothing is found. */
export async function judged(targets: readonly string[], signal?: AbortSignal): Promise<Judged> {
  const responses = [...new Set(targets.map((id) => id.split(":")[0]!))];
  const found = (await Promise.all(responses.map((id) => stored(id, signal)))).filter((each) => each !== null);
  const texts = new Map<string, string>();
  for (const { choices, ratchet } of found) {
    ratchet.completion_ids.forEach((id, place) => texts.set(id, choices[place]?.message.content ?? ""));
  }
  const messages = found[0] ? await asked(found[0].id, signal) : [];
  const answers = targets.flatMap((id) => {
    const text = texts.get(id);
    return text === undefined ? [] : [{ id, text }];
  });
  return { messages, answers };
}

async function stored(id: string, signal?: AbortSignal): Promise<StoredAnswer | null> {
  try {
    return await get<StoredAnswer>(`/v1/chat/completions/${segment(id)}`, stoppedBy(signal));
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

/** The newest of what it answered: a conversation may be longer than one page. */
async function asked(id: string, signal?: AbortSignal): Promise<Message[]> {
  const page = await get<Page<Message>>(`/v1/chat/completions/${segment(id)}/messages`, {
    query: { limit: 100, order: "desc" },
    ...stoppedBy(signal),
  });
  return page.data.toReversed();
}

/** What became of a rater's checks: counts, and e-values' logarithms. */
export interface Checks {
  passed: number;
  failed: number;
  same: number;
  other: number;
  left: number;
  right: number;
  log_e_careless: number;
  log_e_fickle: number;
  log_e_side: number;
}

export interface RaterRow {
  rater: string;
  source: "live" | "operator" | "import";
  split: "train" | "eval" | "";
  judgements: number;
  agreement: number | null;
  reliability: number | null;
  share: number | null;
  capped: boolean;
  checks: Checks;
  /** Why to put the rater aside; empty where there is no reason. */
  suspected: string[];
  quarantined: { actor: string; reason: string; time: number } | null;
  /** How often the left answer was preferred. */
  side: number | null;
}

export const raters = {
  list: (signal?: AbortSignal) => get<{ data: RaterRow[] }>("/v1/raters", stoppedBy(signal)).then(({ data }) => data),
  quarantine: (rater: string, reason: string) =>
    post<RaterRow>(`/v1/raters/${segment(rater)}/quarantine`, { reason }),
  release: (rater: string, reason: string) => post<RaterRow>(`/v1/raters/${segment(rater)}/release`, { reason }),
};

export interface Limits {
  requests_per_minute: number | null;
  tokens_per_day: number | null;
  streams: number | null;
  feedback_per_day: number | null;
}

export interface Key {
  object: "key";
  id: string;
  name: string;
  role: Role;
  created: number;
  expires: number | null;
  limits: Limits;
  last_rotated: number | null;
  /** Of today (UTC); null for a key without limits, which is not counted. */
  usage?: { day: string; requests: number; tokens: number; feedback: number; streams: number } | null;
}

export interface NewKey {
  name: string;
  role: Role;
  expires?: number;
  limits?: Partial<Limits>;
}

export interface KeyChange {
  expires?: number | null;
  limits?: Partial<Limits>;
}

/** The text of a key is in this answer and in no other. */
export type ShownKey = Key & { key: string };

export const keys = {
  /** All, oldest first. */
  list: (signal?: AbortSignal) => everyOne<Key>("/v1/keys", signal),
  create: (wish: NewKey) => post<ShownKey>("/v1/keys", wish),
  /** What is given; null lifts a limit or the expiry, and the others stay. */
  change: (id: string, wish: KeyChange) => post<Key>(`/v1/keys/${segment(id)}`, wish),
  rotate: (id: string) => post<ShownKey>(`/v1/keys/${segment(id)}/rotate`, {}),
  revoke: (id: string) => del<unknown>(`/v1/keys/${segment(id)}`),
};

export interface Invite {
  id: string;
  name: string;
  role: Role;
  created: number;
  expires: number;
}

export type ShownInvite = Invite & { link: string };

export const invites = {
  list: (signal?: AbortSignal) => get<{ data: Invite[] }>("/v1/invites", stoppedBy(signal)).then(({ data }) => data),
  /** `url` is where people reach the page, as the link will say. */
  create: (wish: { name: string; role: Role; url: string; expires?: number }) => post<ShownInvite>("/v1/invites", wish),
  withdraw: (id: string) => del<unknown>(`/v1/invites/${segment(id)}`),
};

async function everyOne<T>(path: string, signal?: AbortSignal): Promise<T[]> {
  const all: T[] = [];
  for (let after: string | undefined; ; ) {
    const page = await get<Page<T>>(path, { query: { limit: 100, after }, ...stoppedBy(signal) });
    all.push(...page.data);
    if (!page.has_more || !page.last_id) return all;
    after = page.last_id;
  }
}

export interface AuditLine {
  id: string;
  time: number;
  kind: "policy" | "release" | "rater" | "freeze" | "key" | "round";
  what: string;
  action: string;
  actor: string;
  reason: string;
  /** What a release, a key or an invite was from then on. */
  became: string | null;
}

export const audit = {
  page: (kind: AuditLine["kind"] | undefined, before: string | undefined, limit: number, signal?: AbortSignal) =>
    get<{ data: AuditLine[]; has_more: boolean }>("/v1/audit", { query: { limit, kind, before }, ...stoppedBy(signal) }),
};
