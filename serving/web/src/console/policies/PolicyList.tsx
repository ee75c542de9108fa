import type { Policy, PolicyList as Listed } from "../../api/policies";
import { Badge } from "../parts/Badge";
import { Loaded } from "../parts/Loaded";
import { Table, type Column } from "../parts/Table";
import { When } from "../parts/When";
import { figure } from "../parts/words";
import { Compare } from "./Compare";
import { PolicyLink } from "./PolicyLink";
import { usePolicies } from "./usePolicies";
import { gateFigure, gateInShort, marksOf, toneOf } from "./words";

export function PolicyList() {
  const polled = usePolicies();
  return (
    <Loaded polled={polled}>
      {(list) => (
        <>
          <Serving list={list} />
          <Table
            label="Policy versions, newest first"
            columns={columnsOf(list)}
            rows={[...list.data].sort((one, other) => other.version - one.version)}
            id={({ version }) => version}
            empty="There is no policy yet."
          />
          {list.data.length > 1 && <Compare versions={list.data.map(({ version }) => version)} />}
        </>
      )}
    </Loaded>
  );
}

function Serving({ list: { stable, served, candidate_served } }: { list: Listed }) {
  return (
    <p>
      {served === null ? (
        "No policy serves"
      ) : (
        <>
          This gateway serves <PolicyLink version={served} />
        </>
      )}
      {candidate_served !== null && (
        <>
          , and <PolicyLink version={candidate_served} /> as a release’s candidate
        </>
      )}
      {stable !== null && stable !== served && (
        <>
          ; stable is <PolicyLink version={stable} />, which is on its way
        </>
      )}
      .
    </p>
  );
}

const number = (value: number | null) => (value === null ? "–" : figure(value));

const columnsOf = (list: Listed): Column<Policy>[] => [
  { name: "Version", cell: ({ version }) => <PolicyLink version={version} /> },
  { name: "State", cell: (policy) => <States policy={policy} list={list} /> },
  { name: "From", cell: ({ parent }) => (parent == null ? "–" : <PolicyLink version={parent} />) },
  { name: "Gate", cell: (policy) => policy.broken ?? gateInShort(policy) },
  { name: "Score gained", numeric: true, cell: (policy) => number(gateFigure(policy, "score_gain")) },
  { name: "KL", numeric: true, cell: (policy) => number(gateFigure(policy, "kl")) },
  { name: "Made", cell: ({ created }) => (created === undefined ? "–" : <When time={created} />) },
];

function States({ policy, list }: { policy: Policy; list: Listed }) {
  return (
    <span className="c-row">
      <Badge tone={toneOf(policy.state)}>{policy.state.replace("_", " ")}</Badge>
      {marksOf(policy, list).map((mark) => (
        <Badge key={mark} tone={mark === "broken" ? "bad" : "plain"}>
          {mark}
        </Badge>
      ))}
    </span>
  );
}
