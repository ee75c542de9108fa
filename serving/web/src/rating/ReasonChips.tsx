import { MAX_REASONS } from "./reasons";

interface Props {
  label: string;
  options: readonly string[];
  chosen: readonly string[];
  onChange: (chosen: string[]) => void;
}

/** Tags to tick; one that was chosen elsewhere is shown too. */
export function ReasonChips({ label, options, chosen, onChange }: Props) {
  const all = [...options, ...chosen.filter((reason) => !options.includes(reason))];
  const toggled = (reason: string) =>
    chosen.includes(reason) ? chosen.filter((other) => other !== reason) : [...chosen, reason];
  return (
    <div role="group" aria-label={label} className="r-chips">
      {all.map((reason) => (
        <button
          key={reason}
          type="button"
          className="r-chip"
          aria-pressed={chosen.includes(reason)}
          disabled={!chosen.includes(reason) && chosen.length >= MAX_REASONS}
          onClick={() => onChange(toggled(reason))}
        >
          {reason}
        </button>
      ))}
    </div>
  );
}
