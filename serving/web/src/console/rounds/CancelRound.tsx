import { rounds, type Round } from "../../api/rounds";
import { Act } from "../parts/Act";
import { asked } from "../parts/words";

/** Ends a round that is open, for good. */
export const CancelRound = ({ round: { id }, onDone }: { round: Round; onDone: () => void }) => (
  <Act
    of={`round ${id}`}
    name="Cancel the round"
    title={`Cancel round ${id}?`}
    danger
    act={(reason) => rounds.cancel(id, asked(reason))}
    onDone={onDone}
  >
    <p>
      Its worker stops within seconds, and nothing is published: what it has trained is lost. What was said is not: the
      next round learns from it, too, but starts by itself only after as many new judgements, or by your hand. If it has
      published by then, nothing is done.
    </p>
  </Act>
);
