import { useState } from "react";
import { raters } from "../../api/oversight";
import { Figure, Figures } from "../parts/Figure";
import { Loaded } from "../parts/Loaded";
import { usePolled } from "../parts/usePolled";
import type { ViewProps } from "../Console";
import "../people.css";
import { OneRater } from "../raters/OneRater";
import { RaterTable } from "../raters/RaterTable";

const EVERY_MS = 30_000;

/** Who judges: how much, how well, and who is suspected or aside; or all that is known of one of them. */
export function Raters({ id }: ViewProps) {
  const polled = usePolled(raters.list, EVERY_MS);
  const [onlyNoted, setOnlyNoted] = useState(false);
  const moved = () => void polled.refresh();
  if (id !== null) return <Loaded polled={polled}>{(rows) => <OneRater id={id} rows={rows} onDone={moved} />}</Loaded>;
  return (
    <Loaded polled={polled}>
      {(rows) => {
        const suspected = rows.filter((row) => row.suspected.length > 0 && row.quarantined === null);
        const aside = rows.filter((row) => row.quarantined !== null);
        return (
          <>
            <Figures>
              <Figure name="Raters" value={rows.length} />
              <Figure name="Decide releases" value={rows.filter((row) => row.split === "eval").length} />
              <Figure name="Suspected" value={suspected.length} />
              <Figure name="Aside" value={aside.length} />
            </Figures>
            <label className="p-check">
              <input type="checkbox" checked={onlyNoted} onChange={(event) => setOnlyNoted(event.target.checked)} />
              Only who is suspected or aside
            </label>
            <RaterTable rows={onlyNoted ? [...suspected, ...aside] : rows} onDone={moved} />
          </>
        );
      }}
    </Loaded>
  );
}
