import { useId } from "react";
import type { Role } from "../../api/client";

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

interface FieldProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
}

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

export function Choice({ label, value, onChange, options }: FieldProps & { options: [string, string][] }) {
  const field = useId();
  return (
    <label htmlFor={field}>
      {label}
      <select id={field} value={value} onChange={(event) => onChange(event.target.value)}>
        {options.map(([option, words]) => (
          <option key={option} value={option}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A whole number from 1, or nothing. */
export function Bound({ label, value, onChange }: FieldProps) {
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
