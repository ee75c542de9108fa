/** What is told of policy versions, in words. */

import type { GateCheck, Pairs, Policy, PolicyList, PolicyState } from "../../api/policies";
import type { Tone } from "../parts/Badge";
import { measured } from "../parts/words";

const TONES: Record<string, Tone> = {
  stable: "good",
  canary: "busy",
  rejected: "bad",
  rolled_back: "bad",
  broken: "bad",
};

export const toneOf = (state: PolicyState): Tone => TONES[state] ?? "plain";

/** States whose version may serve at once. */
export const MAY_SERVE: readonly PolicyState[] = ["candidate", "canary", "retired", "rolled_back"];

/** Whether the gateway serves another version yet than the one that is to serve. */
export const swapping = ({ stable, served }: Pick<PolicyList, "stable" | "served">): boolean =>
  stable !== null && served !== null && stable !== served;

/** The version that a release lets in just now. */
export const canaryOf = ({ data }: Pick<PolicyList, "data">): Policy | undefined =>
  data.find(({ state }) => state === "canary");

/** What else is to say of a version in a few words each. */
export function marksOf(policy: Policy, list: PolicyList): string[] {
  return [
    ...(policy.version === list.served ? [swapping(list) ? "serves until the swap is done" : "serves"] : []),
    ...(policy.version === list.candidate_served ? ["serves as candidate"] : []),
    ...(policy.pinned ? ["pinned"] : []),
    ...(policy.broken !== undefined ? ["broken"] : []),
  ];
}

const stage = (policy: Policy, name: string): Record<string, unknown> => {
  const found = policy.metrics?.[name];
  return typeof found === "object" && found !== null ? (found as Record<string, unknown>) : {};
};

/** All that the gate asked of a version in the list. */
export function checksOf(policy: Policy): GateCheck[] {
  const asked = stage(policy, "gate").checks;
  return Array.isArray(asked) ? (asked as GateCheck[]) : [];
}

export function gateInShort(policy: Policy): string {
  const asked = checksOf(policy);
  if (asked.length === 0) return policy.kind === "base" ? "not asked" : "–";
  const passed = asked.filter((check) => check.passed).length;
  return passed === asked.length ? `all ${asked.length} passed` : `${asked.length - passed} of ${asked.length} failed`;
}

/** A number of the gate's, null where that stage told none. */
export function gateFigure(policy: Policy, name: string): number | null {
  const found = stage(policy, "gate")[`gate/${name}`];
  return typeof found === "number" ? found : null;
}

/** Anything of a configuration or of metrics on one line; a figure by what it is of, where that is told. */
export function told(value: unknown, name = ""): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return measured(name, value);
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return value ? "yes" : "no";
  return Array.isArray(value) ? value.map((each) => told(each)).join(", ") || "none" : JSON.stringify(value);
}

/** The numbers and texts in a tree, by dotted name. */
export function flat(tree: Record<string, unknown>, prefix = ""): [string, unknown][] {
  return Object.entries(tree).flatMap(([name, value]) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? flat(value as Record<string, unknown>, `${prefix}${name}.`)
      : [[`${prefix}${name}`, value] as [string, unknown]],
  );
}

export type Pair = [field: string, sides: [unknown, unknown]];

/** More than these that one side alone has hide what differs. */
const FEW = 6;

/** What differs, without the curves, in which nobody sees anything; and with `fold` what one side alone has apart. */
export function parted(pairs: Pairs, fold: boolean): Record<"both" | "left" | "right", Pair[]> {
  const shown = Object.entries(pairs).filter(([, sides]) => !sides.some(isCurve));
  const alone = (side: 0 | 1) => shown.filter(([, sides]) => sides[1 - side] == null);
  const [left, right] = ([0, 1] as const).map((side) => (fold && alone(side).length > FEW ? alone(side) : []));
  const apart = new Set([...left!, ...right!]);
  return { both: shown.filter((pair) => !apart.has(pair)), left: left!, right: right! };
}

const isCurve = (value: unknown): boolean =>
  Array.isArray(value) && (value.length > 12 || value.some((each) => typeof each === "number" && !Number.isInteger(each)));
