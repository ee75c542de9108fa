import type { RaterRow } from "../../api/oversight";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { searchOf } from "../feedback/chosen";
import { Badge } from "../parts/Badge";
import { Rater } from "../parts/Rater";
import { type Column, Table } from "../parts/Table";
import { When } from "../parts/When";
import { Move } from "./Move";
import { decoys, reliability, repeats, share, side, sideRange, SOURCES, SPLITS } from "./words";

interface RaterTableProps {
  rows: readonly RaterRow[];
  onDone: () => void;
}

export function RaterTable({ rows, onDone }: RaterTableProps) {
  const columns: Column<RaterRow>[] = [
    { name: "Rater", cell: (row) => <Who row={row} /> },
    {
      name: "Judgements",
      numeric: true,
      cell: ({ rater, judgements }) => (
        <Link to={consolePath("feedback") + searchOf({ rater })} aria-label={`${judgements} judgements of ${rater}`}>
          {judgements.toLocaleString("en")}
        </Link>
      ),
    },
    {
      name: "State",
      cell: (row) => (
        <div className="p-moved">
          <State row={row} />
          <Move row={row} onDone={onDone} />
        </div>
      ),
    },
    { name: "Side", cell: (row) => <Side row={row} /> },
    { name: "Checks", cell: ({ checks }) => <Checked checks={checks} /> },
    { name: "In the last round", cell: (row) => <InRound row={row} /> },
  ];
  return <Table label="Raters" columns={columns} rows={rows} id={({ rater }) => rater} empty="Nobody has judged yet." />;
}

const Who = ({ row: { rater, source, split } }: { row: RaterRow }) => (
  <>
    <Rater rater={rater} />
    <div className="p-who muted small">
      {SOURCES[source]}, {SPLITS[split]}
    </div>
  </>
);

/** What is known against somebody stands beside the word: an operator decides by that. */
function State({ row: { quarantined, suspected } }: { row: RaterRow }) {
  if (quarantined !== null) {
    return (
      <div className="p-state">
        <Badge tone="bad">aside</Badge>{" "}
        <span className="small">
          <When time={quarantined.time} />, by {quarantined.actor}: {quarantined.reason}
        </span>
      </div>
    );
  }
  if (suspected.length === 0) return null;
  return (
    <div className="p-state">
      <Badge tone="busy">suspected</Badge> <span className="small">{suspected.join("; ")}</span>
    </div>
  );
}

/** The words say it; the bar shows at a glance which way. */
export function Side({ row }: { row: Pick<RaterRow, "side" | "checks"> }) {
  if (row.side === null) return null;
  return (
    <span className="p-side">
      {side(row)}
      <span className="p-bar" aria-hidden="true">
        <span style={{ width: `${row.side * 100}%` }} />
      </span>
      <span className="muted small">{sideRange(row)}</span>
    </span>
  );
}

/** Decoys passed over, and pairs judged alike when they came again. */
function Checked({ checks }: Pick<RaterRow, "checks">) {
  const [gold, again] = [decoys(checks), repeats(checks)];
  return <Lines first={gold && `decoys passed over: ${gold}`} second={again && `same again: ${again}`} />;
}

function InRound({ row }: { row: RaterRow }) {
  const { agreement, share: part, capped } = row;
  const told = [
    agreement !== null && `agreement ${share(agreement)}`,
    row.reliability !== null && `reliability ${reliability(row)}`,
    part !== null && `share ${share(part)}${capped ? " (capped)" : ""}`,
  ];
  return told.filter((words) => words !== false).map((words) => <div key={words}>{words}</div>);
}

const Lines = ({ first, second }: { first: string; second: string }) =>
  [first, second].filter(Boolean).map((words) => <div key={words}>{words}</div>);
