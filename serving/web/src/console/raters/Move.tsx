import { raters, type RaterRow } from "../../api/oversight";
import { Act } from "../parts/Act";
import { shortRater } from "../parts/Rater";

interface MoveProps {
  row: Pick<RaterRow, "rater" | "quarantined" | "suspected">;
  onDone: () => void;
}

/**
 * Puts a rater aside, or lets one train again; without a word of the operator's own the record says what is known.
 *
 * One button for both, so that the focus stays on it when the one was done and the other is next.
 */
export function Move({ row: { rater, quarantined, suspected }, onDone }: MoveProps) {
  const aside = quarantined !== null;
  const known = suspected.join("; ");
  return (
    <Act
      of={aside ? "aside" : "heard"}
      name={aside ? "Release" : "Quarantine"}
      title={aside ? `Let ${shortRater(rater)} train again?` : `Put ${shortRater(rater)} aside?`}
      danger={!aside}
      act={(reason) =>
        aside
          ? raters.release(rater, reason || "released by hand")
          : raters.quarantine(rater, reason || known || "put aside by hand")
      }
      onDone={onDone}
    >
      {aside ? (
        <p>From the next round on all that stands of them counts again.</p>
      ) : (
        <p>
          From the next round on nothing that they said, or asked, trains or proves anything. Nothing is deleted, and
          they are not told. Policies that have learned from them stay as they are.
        </p>
      )}
      {!aside && known && <p className="muted small">Without another reason the audit trail says: {known}.</p>}
    </Act>
  );
}
