/** What bounds a key, in words. */

import type { Key, Limits } from "../../api/oversight";

export const LIMITS: [keyof Limits, string][] = [
  ["requests_per_minute", "Requests a minute"],
  ["tokens_per_day", "Tokens a day"],
  ["streams", "Answers at once"],
  ["feedback_per_day", "Judgements a day"],
];

const UNITS: Record<keyof Limits, string> = {
  requests_per_minute: "requests/min",
  tokens_per_day: "tokens/day",
  streams: "at once",
  feedback_per_day: "judgements/day",
};

export function limitsIn({ limits }: Pick<Key, "limits">): string[] {
  return LIMITS.flatMap(([limit]) => {
    const bound = limits[limit];
    return bound === null ? [] : [`${bound.toLocaleString("en")} ${UNITS[limit]}`];
  });
}

export function usedToday({ requests, tokens, feedback }: NonNullable<Key["usage"]>): string {
  return [counted(requests, "request"), counted(tokens, "token"), counted(feedback, "judgement")].join(", ");
}

const counted = (count: number, one: string): string =>
  `${count.toLocaleString("en")} ${count === 1 ? one : `${one}s`}`;

/** Limits as they stand in fields: "" is none. */
export type Typed = Record<keyof Limits, string>;

export const UNBOUND: Typed = { requests_per_minute: "", tokens_per_day: "", streams: "", feedback_per_day: "" };

export const typedOf = (limits: Limits): Typed => ofEach((limit) => limits[limit]?.toString() ?? "");

export const boundsOf = (typed: Typed): Limits => ofEach((limit) => (typed[limit] === "" ? null : Number(typed[limit])));

/** What of it is not so yet. */
export const changed = (wish: Limits, limits: Limits): Partial<Limits> =>
  Object.fromEntries(LIMITS.flatMap(([limit]) => (wish[limit] === limits[limit] ? [] : [[limit, wish[limit]]])));

const ofEach = <T>(of: (limit: keyof Limits) => T): Record<keyof Limits, T> =>
  Object.fromEntries(LIMITS.map(([limit]) => [limit, of(limit)])) as Record<keyof Limits, T>;
