import { useId, useRef, useState, type ReactNode } from "react";
import { nameOf, type Policy, type PolicyList } from "../../api/policies";
import { releases, type Electorate, type Mode, type NewRelease, type Release } from "../../api/releases";
import { consolePath, go } from "../../app/route";
import { Act } from "../parts/Act";
import { asked } from "../parts/words";
import { stepsOf, STEPS_HELP } from "./steps";
import { ENDS } from "./words";

interface StartProps {
  policies: PolicyList;
  /** In whose place it begins. */
  open: Release | null;
  onDone: () => void;
}

const RELEASABLE = ["candidate", "retired", "rolled_back"];
/** As the installation has it. */
const AS_SET = "";

/** Leads to the release. */
export function StartRelease({ policies, open, onDone }: StartProps) {
  const releasable = policies.data.filter((policy) => isReleasable(policy) && policy.version !== open?.candidate);
  const [candidate, setCandidate] = useState("");
  const [mode, setMode] = useState<Mode | typeof AS_SET>(AS_SET);
  const [raters, setRaters] = useState<Electorate | typeof AS_SET>(AS_SET);
  const [steps, setSteps] = useState("");
  const begun = useRef<number>(0);
  if (releasable.length === 0) return <p className="muted">{noneFor(open)}</p>;
  const newest = newestOf(releasable);
  const chosen = releasable.some(({ id }) => id === candidate) ? candidate : newest.id;
  const wish = (reason: string): NewRelease => ({
    candidate: chosen,
    replaces: open?.id ?? null,
    reason: asked(reason),
    ...(mode && { mode }),
    ...(steps.trim() && { strategy: { steps: stepsOf(steps) } }),
    ...(raters && { plan: { raters } }),
  });
  return (
    <Act
      of={`${open?.id}/${newest.id}`}
      name="Start a release"
      title="Start a release"
      primary
      act={async (reason) => (begun.current = (await releases.start(wish(reason))).id)}
      onDone={() => (begun.current ? go(consolePath("releases", begun.current)) : onDone())}
    >
      <p>
        The candidate answers a growing share of conversations beside the stable policy, step by step, until the votes
        or you decide.
        {open &&
          ` It takes the place of release ${open.id}, which ends: policy-v${open.candidate} is what it was before.`}
      </p>
      <Choice name="Candidate" value={chosen} onChange={setCandidate}>
        {releasable.map(({ id, state }) => (
          <option key={id} value={id}>
            {id} ({state.replace("_", " ")})
          </option>
        ))}
      </Choice>
      <Choice name="In the end" value={mode} onChange={(value) => setMode(value as Mode)}>
        <option value={AS_SET}>as the setting RATCHET_RELEASE_MODE says</option>
        {Object.entries(ENDS).map(([value, says]) => (
          <option key={value} value={value}>
            {says}
          </option>
        ))}
      </Choice>
      <Choice name="Whose votes decide" value={raters} onChange={(value) => setRaters(value as Electorate)}>
        <option value={AS_SET}>as the installation’s release.json says</option>
        <option value="auto">raters who never train, if enough of them vote</option>
        <option value="evaluation">raters who never train</option>
        <option value="all">all raters</option>
      </Choice>
      <StepsField value={steps} onChange={setSteps} />
    </Act>
  );
}

const isReleasable = ({ state, broken }: Policy): boolean => RELEASABLE.includes(state) && broken === undefined;

const noneFor = (open: Release | null): string =>
  open === null
    ? "No policy version can be released: none is a candidate."
    : `No version other than ${nameOf(open.candidate)} can be released now.`;

const newestOf = (listed: Policy[]): Policy =>
  listed.reduce((one, other) => (other.version > one.version ? other : one));

interface ChoiceProps {
  name: string;
  value: string;
  onChange: (value: string) => void;
  children: ReactNode;
}

function Choice({ name, value, onChange, children }: ChoiceProps) {
  return (
    <label>
      {name}
      <select value={value} onChange={(event) => onChange(event.target.value)}>
        {children}
      </select>
    </label>
  );
}

function StepsField({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  const help = useId();
  return (
    <label>
      <span>
        Steps <span className="muted">(empty: the plan’s own)</span>
      </span>
      <input
        type="text"
        value={value}
        placeholder="5%, 30m, 25%, analysis"
        aria-describedby={help}
        onChange={(event) => onChange(event.target.value)}
      />
      <span id={help} className="muted small">
        {STEPS_HELP}
      </span>
    </label>
  );
}
