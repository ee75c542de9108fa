import { releases, type Order, type Release } from "../../api/releases";
import { Act } from "../parts/Act";
import { asked } from "../parts/words";
import { consequence, waitsForOperator } from "./words";

/** The orders that an open release takes as it stands. Where its plan waits, to pass the step is to resume. */
export function Orders({ release, onDone }: { release: Release; onDone: () => void }) {
  const held = release.state !== "pending";
  const give = { release, onDone };
  return (
    <div className="c-row" role="group" aria-label={`Orders for release ${release.id}`}>
      {held && !release.proposed && <Give {...give} order="promote" />}
      <Give {...give} order="promote" full primary={release.proposed} />
      {!waitsForOperator(release) && <Give {...give} order={release.paused ? "resume" : "pause"} />}
      <Give {...give} order="abort" danger />
      {held && <Give {...give} order="rollback" danger />}
    </div>
  );
}

interface GiveProps {
  release: Release;
  order: Order;
  full?: boolean;
  primary?: boolean;
  danger?: boolean;
  onDone: () => void;
}

/** Only of what is seen: what has changed meanwhile answers 409, but stops are meant at whichever step it is. */
function Give({ release, order, full = false, primary, danger, onDone }: GiveProps) {
  const { title, action, says } = consequence(release, order, full);
  const seen = order === "promote" || order === "resume" ? { revision: release.revision } : {};
  return (
    <Act
      of={[order, release.id, ...Object.values(seen)].join("/")}
      name={action}
      title={title}
      {...(primary && { primary })}
      {...(danger && { danger })}
      act={(reason) => releases.order(release.id, order, { reason: asked(reason), ...seen, ...(full && { full }) })}
      onDone={onDone}
    >
      <p>{says}</p>
    </Act>
  );
}
