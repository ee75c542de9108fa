import { useId } from "react";
import type { Role } from "../../api/client";
import type { FieldProps } from "../parts/Choice";
import { LIMITS, type Typed } from "./limits";

export const ROLES: [Role, string][] = [
  ["user", "user"],
  ["rater", "rater"],
  ["operator", "operator"],
  ["admin", "admin"],
];

const DAY_S = 86_400;

export const DAYS: [string, string][] = [
  ["1", "in a day"],
  ["7", "in a week"],
  ["30", "in 30 days"],
  ["90", "in 90 days"],
  ["365", "in a year"],
];

/** When something made now ends; "" never does. */
export const endOf = (days: string): { expires?: number } =>
  days === "" ? {} : { expires: Math.floor(Date.now() / 1000) + Number(days) * DAY_S };

export function Text({ label, value, onChange }: FieldProps) {
  const field = useId();
  return (
    <label htmlFor={field}>
      {label}
      <input
        id={field}
        type="text"
        required
        maxLength={100}
        autoComplete="off"
        value={value}
        onChange={(event) => onChange(event.target.value)}
      />
    </label>
  );
}

interface BoundsProps {
  typed: Typed;
  onChange: (typed: Typed) => void;
}

/** What a key may do at most: an empty field is no limit. */
export const Bounds = ({ typed, onChange }: BoundsProps) => (
  <div className="p-fields">
    {LIMITS.map(([limit, words]) => (
      <Bound key={limit} label={words} value={typed[limit]} onChange={(value) => onChange({ ...typed, [limit]: value })} />
    ))}
  </div>
);

/** A whole number from 1, or nothing. */
function Bound({ label, value, onChange }: FieldProps) {
  const field = useId();
  return (
    <label htmlFor={field}>
      {label}
      <input
        id={field}
        type="number"
        min={1}
        step={1}
        placeholder="no limit"
        value={value}
        onChange={(event) => onChange(event.target.value)}
      />
    </label>
  );
}
