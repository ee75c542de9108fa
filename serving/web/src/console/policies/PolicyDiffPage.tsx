import { nameOf, policies, type Pairs, type PolicyDiff } from "../../api/policies";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { Figure, Figures } from "../parts/Figure";
import { Loaded } from "../parts/Loaded";
import { usePolled } from "../parts/usePolled";
import { Beside } from "./Beside";
import { Compare, diffPath } from "./Compare";
import { PolicyLink } from "./PolicyLink";
import { told } from "./words";

export function PolicyDiffPage({ left, right }: { left: number; right: number }) {
  const list = usePolled(policies.list, null);
  const polled = usePolled((signal) => policies.diff(left, right, signal), null, `${left}-${right}`);
  return (
    <>
      <p className="small c-row">
        <Link to={consolePath("policies")}>All versions</Link>
        <Link to={diffPath(right, left)}>Swap sides</Link>
      </p>
      <h2>
        <PolicyLink version={left} /> beside <PolicyLink version={right} />
      </h2>
      {list.value && <Compare versions={list.value.data.map(({ version }) => version)} at={[left, right]} />}
      <Loaded polled={polled}>{(diff) => <Whole diff={diff} />}</Loaded>
    </>
  );
}

function Whole({ diff }: { diff: PolicyDiff }) {
  const { common_ancestor: common, judgements, versions } = diff;
  const [left, right] = versions.map(nameOf) as [string, string];
  const gate = Object.fromEntries(
    Object.entries(diff.gate).map(([name, pair]) => [
      name,
      pair.map((side) => side && `${told(side.value, name)}, ${side.verdict}`),
    ]),
  ) as Pairs;
  return (
    <>
      <Answers diff={diff} />
      <section>
        <h2>Where they part</h2>
        <Figures>
          <Figure name="Nearest common version" value={common === null ? "none" : <PolicyLink version={common} />} />
          <Figure name={`Judgements that trained only ${left}`} value={judgements.left.toLocaleString("en")} />
          <Figure name="That trained both" value={judgements.both.toLocaleString("en")} />
          <Figure name={`That trained only ${right}`} value={judgements.right.toLocaleString("en")} />
        </Figures>
      </section>
      <Beside name="Gate" pairs={gate} versions={versions} empty="The gate asked nothing of either." />
      <Beside name="Figures" one="figure" pairs={diff.metrics} versions={versions} empty="Nothing differs." />
      <Beside name="Lineage" pairs={diff.lineage} versions={versions} empty="Nothing differs." />
      <Beside name="Configuration" one="setting" pairs={diff.config} versions={versions} empty="They were trained alike." />
    </>
  );
}

/** To the same fixed prompts, as each wrote when it was made. */
function Answers({ diff: { answers = [], answers_missing = [], versions } }: { diff: PolicyDiff }) {
  return (
    <section>
      <h2>Answers to the same prompts</h2>
      {answers_missing.length > 0 && (
        <p className="muted">
          No answers were written down when {answers_missing.map(nameOf).join(" and ")} came to be.
        </p>
      )}
      {answers.map(({ prompt, left, right, left_cut, right_cut }) => (
        <article key={prompt} className="c-card">
          <h3>{prompt}</h3>
          {left === right && left_cut === right_cut ? (
            <Said by="both" text={left} cut={left_cut} />
          ) : (
            <div className="c-columns">
              <Said by={nameOf(versions[0])} text={left} cut={left_cut} />
              <Said by={nameOf(versions[1])} text={right} cut={right_cut} />
            </div>
          )}
        </article>
      ))}
    </section>
  );
}

interface SaidProps {
  by: string;
  text: string;
  /** Whether it would have gone on. */
  cut: boolean | null | undefined;
}

const Said = ({ by, text, cut }: SaidProps) => (
  <div className="c-stack">
    <p className="muted small">{by}</p>
    <p className="c-said">
      {text || <span className="muted">(nothing)</span>}
      {cut && <span className="muted small"> … cut at the limit of length</span>}
    </p>
  </div>
);
