import { raters, type RaterRow } from "../../api/oversight";
import { Badge } from "../parts/Badge";
import { Loaded } from "../parts/Loaded";
import { Rater } from "../parts/Rater";
import { usePolled } from "../parts/usePolled";
import { When } from "../parts/When";
import { Move } from "../raters/Move";
import { Judgements } from "./Judgements";

const SHOWN = 5;

/** Whoever is suspected or aside, each with what they said last: read it, and decide. */
export function Review() {
  const polled = usePolled(raters.list, null);
  return (
    <Loaded polled={polled}>
      {(rows) => {
        const looked = rows
          .filter((row) => row.suspected.length > 0 || row.quarantined !== null)
          // Suspects first, aside or not: nobody moves when they are put aside, so the focus stays where it was.
          .sort((one, other) => Number(other.suspected.length > 0) - Number(one.suspected.length > 0));
        if (looked.length === 0) return <p>Nobody is suspected, and nobody is aside.</p>;
        return looked.map((row) => <Case key={row.rater} row={row} onDone={() => void polled.refresh()} />);
      }}
    </Loaded>
  );
}

function Case({ row, onDone }: { row: RaterRow; onDone: () => void }) {
  return (
    <section className="c-card" aria-label={row.rater}>
      <div className="c-row">
        <h2>
          <Rater rater={row.rater} />
        </h2>
        {row.quarantined === null ? <Badge tone="busy">to decide</Badge> : <Badge tone="bad">aside</Badge>}
        <span className="muted small">
          {row.judgements} {row.judgements === 1 ? "judgement" : "judgements"}
        </span>
        <span className="p-end">
          <Move row={row} onDone={onDone} />
        </span>
      </div>
      <Why row={row} />
      <Judgements label={`What ${row.rater} said`} wanted={{ rater: row.rater }} limit={SHOWN} ofOne />
    </section>
  );
}

/** What speaks against a rater, and who put them aside for what. */
export function Why({ row: { suspected, quarantined } }: { row: Pick<RaterRow, "suspected" | "quarantined"> }) {
  return (
    <>
      {suspected.length > 0 && <p>Suspected: {suspected.join("; ")}.</p>}
      {quarantined !== null && (
        <p>
          Aside since <When time={quarantined.time} />, by {quarantined.actor}: {quarantined.reason}
        </p>
      )}
    </>
  );
}
