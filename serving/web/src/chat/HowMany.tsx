import { OpenIcon } from "../app/icons";
import { RANKABLE, type Mode, type Wanted } from "./mode";

interface HowManyProps {
  wanted: Wanted;
  onWant: (wanted: Wanted) => void;
}

/** One answer, two side by side, or several to rank: how many they are is chosen where they are. */
export function HowMany({ wanted, onWant }: HowManyProps) {
  const { mode, ranked } = wanted;
  const modes: [Mode, string, string][] = [
    ["one", "1 answer", "One answer"],
    ["two", "2 side by side", "Two answers side by side, blind"],
    ["several", `${ranked} to rank`, "Several answers to rank, blind"],
  ];
  return (
    <div className="how-many">
      <div role="radiogroup" aria-label="How many answers">
        {modes.map(([value, label, title]) => (
          <label key={value} title={title}>
            <input type="radio" name="mode" checked={mode === value} onChange={() => onWant({ ...wanted, mode: value })} />
            <span>{label}</span>
          </label>
        ))}
      </div>
      {mode === "several" && (
        <label title="How many to rank">
          <select
            aria-label="How many to rank"
            value={ranked}
            onChange={(event) => onWant({ ...wanted, ranked: Number(event.target.value) })}
          >
            {RANKABLE.map((count) => (
              <option key={count} value={count}>
                {count} to rank
              </option>
            ))}
          </select>
          <span>
            <OpenIcon />
          </span>
        </label>
      )}
    </div>
  );
}
