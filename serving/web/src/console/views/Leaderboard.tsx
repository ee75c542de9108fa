import { useState } from "react";
import { nameOf, policies, type BoardQuery, type Leaderboard as Board, type Standing } from "../../api/policies";
import { ANCHORED, eloOf, eloWithin, remarks, within } from "../leaderboard/words";
import { Badge } from "../parts/Badge";
import { Loaded } from "../parts/Loaded";
import { Plot } from "../parts/Plot";
import { Table, type Column } from "../parts/Table";
import { usePolled } from "../parts/usePolled";
import { percent } from "../parts/words";
import { PolicyLink } from "../policies/PolicyLink";
import "../releases/releases.css";

const EVERY_MS = 15_000;

/** Which versions people prefer, by all votes on answers of two of them. */
export function Leaderboard() {
  const [query, setQuery] = useState<BoardQuery>({ raters: "all", blind: false, anchor: 0 });
  const polled = usePolled((signal) => policies.leaderboard(query, signal), EVERY_MS, JSON.stringify(query));
  const versions = usePolled(policies.list, null).value?.data.map(({ version }) => version) ?? [query.anchor];
  return (
    <>
      <Filters query={query} versions={versions} onChange={setQuery} />
      <Loaded polled={polled}>{(board) => <Whole board={board} />}</Loaded>
    </>
  );
}

interface FiltersProps {
  query: BoardQuery;
  versions: number[];
  onChange: (query: BoardQuery) => void;
}

function Filters({ query, versions, onChange }: FiltersProps) {
  return (
    <div className="c-row c-pick" role="group" aria-label="Whose votes, and on what">
      <label>
        Votes of
        <select
          value={query.raters}
          onChange={(event) => onChange({ ...query, raters: event.target.value as BoardQuery["raters"] })}
        >
          <option value="all">everybody</option>
          <option value="evaluation">raters who never train</option>
          <option value="training">raters who train</option>
        </select>
      </label>
      <label>
        Measured from
        <select value={query.anchor} onChange={(event) => onChange({ ...query, anchor: Number(event.target.value) })}>
          {versions.map((version) => (
            <option key={version} value={version}>
              {nameOf(version)}
            </option>
          ))}
        </select>
      </label>
      <label>
        <input
          type="checkbox"
          checked={query.blind}
          onChange={(event) => onChange({ ...query, blind: event.target.checked })}
        />
        Only blind votes
      </label>
    </div>
  );
}

function Whole({ board }: { board: Board }) {
  const ranked = board.standings.flatMap(({ version, elo }) =>
    elo === null ? [] : [{ x: version, y: elo.value, low: elo.low, high: elo.high }],
  );
  return (
    <>
      <Table
        label="Leaderboard, the strongest first"
        columns={columnsOf(board)}
        rows={board.standings}
        id={({ version }) => version}
        empty="There is no policy version yet."
      />
      {ranked.length > 0 && (
        <Plot
          title="Elo of each version, with its interval"
          series={[{ name: "Elo", points: ranked, as: "dots" }]}
          x={{ name: "policy version", kind: "whole" }}
          y={{ name: "Elo" }}
          rules={[{ name: nameOf(board.anchor), y: ANCHORED }]}
        />
      )}
      <ul className="c-remarks muted small">
        {remarks(board).map((remark) => (
          <li key={remark}>{remark}</li>
        ))}
      </ul>
    </>
  );
}

const columnsOf = (board: Board): Column<Standing>[] => [
  { name: "Version", cell: ({ version }) => <Version version={version} board={board} /> },
  { name: "Elo", numeric: true, cell: (row) => eloOf(row, board) },
  { name: "Interval", cell: (row) => eloWithin(row, board) },
  {
    name: "Wins over stable",
    numeric: true,
    cell: (row) =>
      row.against_stable === null || row.version === board.stable ? "–" : percent(row.against_stable.value),
  },
  {
    name: "Its interval",
    cell: (row) =>
      row.against_stable === null || row.version === board.stable ? "–" : within(row.against_stable, percent),
  },
  { name: "Votes", numeric: true, cell: ({ votes }) => votes },
  { name: "Won", numeric: true, cell: ({ wins }) => wins },
  { name: "Tied", numeric: true, cell: ({ ties }) => ties },
  { name: "Lost", numeric: true, cell: ({ losses }) => losses },
  { name: "Raters", numeric: true, cell: ({ raters }) => raters },
];

const Version = ({ version, board }: { version: number; board: Board }) => (
  <span className="c-row">
    <PolicyLink version={version} />
    {version === board.stable && <Badge tone="good">stable</Badge>}
    {version === board.anchor && <Badge>anchor</Badge>}
  </span>
);
