import { raters, type RaterRow } from "../../api/oversight";
import { Act } from "../parts/Act";
import { shortRater } from "../parts/Rater";

export type Movable = Pick<RaterRow, "rater" | "quarantined" | "suspected">;

interface MoveProps {
  row: Movable;
  onDone: () => void;
}

/** Puts a rater aside, or lets one train again; without a word of the operator's own the record says what is known. */
export const Move = ({ row, onDone }: MoveProps) =>
  row.quarantined === null ? <Quarantine row={row} onDone={onDone} /> : <Release row={row} onDone={onDone} />;

function Quarantine({ row: { rater, suspected }, onDone }: MoveProps) {
  const known = suspected.join("; ");
  return (
    <Act
      name="Quarantine"
      title={`Put ${shortRater(rater)} aside?`}
      danger
      act={(reason) => raters.quarantine(rater, reason || known || "put aside by hand")}
      onDone={onDone}
    >
      <p>
        From the next round on nothing that they said, or asked, trains or proves anything. Nothing is deleted, and
        they are not told. Policies that have learned from them stay as they are.
      </p>
      {known && <p className="muted small">Without another reason the audit trail says: {known}.</p>}
    </Act>
  );
}

function Release({ row: { rater }, onDone }: MoveProps) {
  return (
    <Act
      name="Release"
      title={`Let ${shortRater(rater)} train again?`}
      act={(reason) => raters.release(rater, reason || "released by hand")}
      onDone={onDone}
    >
      <p>From the next round on all that stands of them counts again.</p>
    </Act>
  );
}
