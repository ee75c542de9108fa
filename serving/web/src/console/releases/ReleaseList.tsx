import type { ReactNode } from "react";
import { policies } from "../../api/policies";
import { releases, type Estimated, type Release, type ReleaseList as Listed } from "../../api/releases";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { Loaded } from "../parts/Loaded";
import { NumberedTable } from "../parts/NumberedTable";
import type { Column } from "../parts/Table";
import { usePolled } from "../parts/usePolled";
import { When } from "../parts/When";
import { PolicyLink } from "../policies/PolicyLink";
import { Awaited } from "./Awaited";
import { Progress } from "./Evidence";
import { ReleaseBadge } from "./ReleaseBadge";
import { StartRelease } from "./StartRelease";
import { Usual } from "./Usual";
import { percent, ranged } from "../parts/words";

const EVERY_MS = 5_000;

export function ReleaseList() {
  const polled = usePolled((signal) => releases.list(signal), EVERY_MS);
  const known = usePolled(policies.list, EVERY_MS * 6);
  const refresh = () => void Promise.all([polled.refresh(), known.refresh()]);
  return (
    <Loaded polled={polled}>
      {(listed) => (
        <>
          <Standing listed={listed} />
          <Usual usual={listed.usual} />
          {known.value && (
            <div className="c-row">
              <StartRelease policies={known.value} open={openOf(listed)} onDone={refresh} />
            </div>
          )}
          <NumberedTable
            newest={listed}
            list={releases.list}
            label="Releases, newest first"
            columns={COLUMNS}
            empty="Nothing was ever released: whatever serves was put there directly."
          />
        </>
      )}
    </Loaded>
  );
}

const openOf = ({ data, open }: Listed): Release | null => data.find(({ id }) => id === open) ?? null;

function Standing({ listed }: { listed: Listed }) {
  const release = openOf(listed);
  return (
    <>
      {listed.frozen && (
        <p className="c-remark">
          Releases are frozen: nothing is released or promoted by itself. What is worse is still rolled back.
        </p>
      )}
      <p>
        {release === null ? (
          "No release is open."
        ) : (
          <>
            <Link to={consolePath("releases", release.id)}>Release {release.id}</Link> is open: {release.is}.
          </>
        )}
      </p>
      {release && <Awaited release={release} />}
    </>
  );
}

const COLUMNS: Column<Release>[] = [
  { name: "Release", cell: ({ id }) => <Link to={consolePath("releases", id)}>{id}</Link> },
  { name: "State", cell: (release) => <ReleaseBadge release={release} /> },
  { name: "Candidate", cell: (release) => <Pair release={release} /> },
  { name: "Votes", numeric: true, cell: ({ votes }) => (votes === null ? "–" : votes.won + votes.lost + votes.tied) },
  { name: "Win rate", cell: ({ win_rate }) => (win_rate === null ? "–" : <Rate rate={win_rate} />) },
  { name: "Evidence", cell: (release) => <Progress release={release} /> },
  { name: "Began", cell: ({ created, actor }) => <Lines first={<When time={created} />} second={`by ${actor}`} /> },
  { name: "Why", cell: ({ open, why, reason }) => (open ? reason : why || reason) },
];

const Pair = ({ release: { candidate, stable } }: { release: Release }) => (
  <Lines
    first={<PolicyLink version={candidate} />}
    second={
      <>
        beside <PolicyLink version={stable} />
      </>
    }
  />
);

const Rate = ({ rate: { value, low, high } }: { rate: Estimated }) => (
  <Lines first={percent(value)} second={ranged({ low, high }, percent)} />
);

const Lines = ({ first, second }: { first: ReactNode; second: ReactNode }) => (
  <>
    {first}
    <br />
    <span className="muted small">{second}</span>
  </>
);
