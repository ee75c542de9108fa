/** Which judgements are looked at, as the address names it: so a view of them can be kept and sent on. */

import type { Wanted } from "../../api/oversight";

export const FILTERS = ["type", "rater", "policy", "split", "lane", "aside", "since", "until"] as const;

export type Filter = (typeof FILTERS)[number];

/** As they stand in the fields: "" does not filter; `since` and `until` are days, the last one included. */
export type Chosen = Record<Filter, string>;

export function chosenIn(search: string): Chosen {
  const query = new URLSearchParams(search);
  return Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""])) as Chosen;
}

/** "" or what follows a path, "?" included. */
export function searchOf(chosen: Partial<Chosen>): string {
  const query = new URLSearchParams();
  for (const name of FILTERS) if (chosen[name]) query.set(name, chosen[name]);
  return query.size ? `?${query}` : "";
}

export const isFiltered = (chosen: Chosen): boolean => FILTERS.some((name) => chosen[name] !== "");

/** The version that a policy is named by, also as people write it: null for none named, NaN for what names none. */
export function versionIn(policy: string): number | null {
  const name = policy.trim();
  return name === "" ? null : Number(/^(?:policy-)?v?(\d{1,9})$/i.exec(name)?.[1] ?? NaN);
}

/** What the gateway is asked, of a day that is none nothing; null where no judgement can be meant. */
export function wantedBy({ type, rater, policy, split, lane, aside, since, until }: Chosen): Wanted | null {
  const version = versionIn(policy);
  if (Number.isNaN(version)) return null;
  return {
    ...(type && { type }),
    ...(rater.trim() && { rater: rater.trim() }),
    ...(version !== null && { policy_version: version }),
    ...(split && { split }),
    ...(lane && { lane }),
    ...(aside && { quarantined: aside === "only" }),
    ...dayFrom("since", since, 0),
    ...dayFrom("until", until, 1),
  };
}

/** The beginning of a day, here, so many days later. */
function dayFrom(name: "since" | "until", day: string, later: number): { [name in "since" | "until"]?: number } {
  const parts = /^(\d{4})-(\d{2})-(\d{2})$/.exec(day);
  if (!parts) return {};
  const [year, month, date] = parts.slice(1).map(Number) as [number, number, number];
  return { [name]: new Date(year, month - 1, date + later).getTime() / 1000 };
}
