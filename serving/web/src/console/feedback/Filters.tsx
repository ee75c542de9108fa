import { useEffect, useId, useState, type FormEvent } from "react";
import { Choice, type FieldProps, type Options } from "../parts/Choice";
import { type Chosen, type Filter, isFiltered, versionIn } from "./chosen";

interface FiltersProps {
  chosen: Chosen;
  onChoose: (chosen: Chosen) => void;
}

const CHOICES: [Filter, string, Options][] = [
  [
    "type",
    "Kind",
    [
      ["", "All"],
      ["rating", "Thumbs and marks"],
      ["comparison", "Comparisons"],
      ["ranking", "Rankings"],
      ["demonstration", "Corrections"],
      ["comment", "Comments"],
      ["flag", "Reports"],
    ],
  ],
  [
    "split",
    "Split",
    [
      ["", "Both"],
      ["train", "Trains"],
      ["eval", "Decides releases"],
    ],
  ],
  [
    "lane",
    "Drawn for",
    [
      ["", "Anything"],
      ["release", "A release"],
      ["aa", "One policy twice"],
      ["gold", "A decoy"],
      ["repeat", "A pair again"],
    ],
  ],
  [
    "aside",
    "Raters aside",
    [
      ["", "Included"],
      ["only", "Only they"],
      ["without", "Without them"],
    ],
  ],
];

const NONE: Chosen = { type: "", rater: "", policy: "", split: "", lane: "", aside: "", since: "", until: "" };

/** What is chosen from holds at once; what is typed when the field is left, or by Enter. */
export function Filters({ chosen, onChoose }: FiltersProps) {
  const [draft, setDraft] = useState(chosen);
  const told = JSON.stringify(chosen);
  const unknown = Number.isNaN(versionIn(chosen.policy));
  const complaint = useId();
  useEffect(() => setDraft(JSON.parse(told) as Chosen), [told]);
  const apply = (next: Chosen) => JSON.stringify(next) !== told && onChoose(next);
  const choose = (name: Filter) => (value: string) => {
    setDraft({ ...draft, [name]: value });
    apply({ ...draft, [name]: value });
  };
  const typed = (name: Filter) => ({
    value: draft[name],
    onType: (value: string) => setDraft({ ...draft, [name]: value }),
    onLeave: () => apply(draft),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    apply(draft);
  };
  return (
    <form className="p-filters" role="search" aria-label="Filter judgements" onSubmit={submit}>
      {CHOICES.map(([name, label, options]) => (
        <Choice key={name} label={label} options={options} value={draft[name]} onChange={choose(name)} />
      ))}
      <Typed label="Rater" hint="or choose one below" {...typed("rater")} />
      <Typed label="Policy" hint="such as 3" {...(unknown && { complaint })} {...typed("policy")} />
      <Day label="From" value={draft.since} onChange={choose("since")} />
      <Day label="To" value={draft.until} onChange={choose("until")} />
      <button type="submit" className="p-apply" disabled={JSON.stringify(draft) === told}>
        Filter
      </button>
      {isFiltered(chosen) && (
        <button type="button" className="link p-reset" onClick={() => onChoose(NONE)}>
          Show all
        </button>
      )}
      {unknown && (
        <p id={complaint} className="failure p-whole-line" role="alert">
          No policy is called “{chosen.policy.trim()}”: write its version, such as 3.
        </p>
      )}
    </form>
  );
}

function Day({ label, value, onChange }: FieldProps) {
  const field = useId();
  return (
    <label htmlFor={field}>
      {label}
      <input id={field} type="date" value={value} onChange={(event) => onChange(event.target.value)} />
    </label>
  );
}

interface TypedProps {
  label: string;
  hint?: string;
  /** The id of what is said against it. */
  complaint?: string;
  value: string;
  onType: (value: string) => void;
  onLeave: () => void;
}

function Typed({ label, hint, complaint, value, onType, onLeave }: TypedProps) {
  const field = useId();
  return (
    <label htmlFor={field}>
      {label}
      <input
        id={field}
        type="text"
        autoComplete="off"
        spellCheck={false}
        placeholder={hint}
        aria-invalid={complaint !== undefined}
        aria-describedby={complaint}
        value={value}
        onChange={(event) => onType(event.target.value)}
        onBlur={onLeave}
      />
    </label>
  );
}
