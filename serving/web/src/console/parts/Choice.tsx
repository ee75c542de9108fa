import { useId } from "react";

/** Of every labelled field with a text for its value. */
export interface FieldProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
}

export type Options = [value: string, words: string][];

export function Choice({ label, value, onChange, options }: FieldProps & { options: Options }) {
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
