import { Fragment } from "react";
import type { PolicyFacts } from "../../api/policies";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { PolicyLink } from "./PolicyLink";

/** From the base on the left to what came of it on the right. */
export function Lineage({ policy }: { policy: PolicyFacts }) {
  const { version, ancestors, descendants, round } = policy;
  return (
    <dl className="c-lineage">
      <dt>Comes from</dt>
      <dd>
        <Chain versions={[...(ancestors ?? [])].reverse()} empty="nothing: it is where all others come from" />
      </dd>
      <dt>Made by</dt>
      <dd>{round == null ? "no round" : <Link to={consolePath("rounds", round)}>round {round}</Link>}</dd>
      <dt>Went on as</dt>
      <dd>
        <Chain
          versions={descendants ?? []}
          separator=", "
          empty={`nothing yet: no version was trained from policy-v${version}`}
        />
      </dd>
    </dl>
  );
}

interface ChainProps {
  versions: number[];
  separator?: string;
  empty: string;
}

function Chain({ versions, separator = " → ", empty }: ChainProps) {
  if (versions.length === 0) return <span className="muted">{empty}</span>;
  return (
    <>
      {versions.map((version, at) => (
        <Fragment key={version}>
          {at > 0 && <span className="muted">{separator}</span>}
          <PolicyLink version={version} />
        </Fragment>
      ))}
    </>
  );
}
