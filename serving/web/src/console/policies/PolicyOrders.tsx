import { nameOf, policies, type Policy, type PolicyList } from "../../api/policies";
import { Act } from "../parts/Act";
import { asked } from "../parts/words";
import { canaryOf, MAY_SERVE, swapping } from "./words";

interface OrdersProps {
  policy: Policy;
  list: PolicyList;
  onDone: () => void;
}

/** To serve a version at once, without a release, or to go back from it. */
export function PolicyOrders({ policy, list, onDone }: OrdersProps) {
  const { version, state, id } = policy;
  const { stable: expected, previous } = list;
  const of = `${version === expected}/${expected}/${previous}`;
  if (version === expected) {
    if (previous === null) return null;
    return (
      <div className="c-row">
        <Act
          of={of}
          name="Roll back"
          title={`Roll back ${id}?`}
          danger
          act={(reason) => policies.rollBack({ reason: asked(reason), expected, to: previous })}
          onDone={onDone}
        >
          <p>
            {id} stops serving; {nameOf(previous)} answers everybody. Answers that are being written are finished.
          </p>
          <Ends list={list} />
        </Act>
      </div>
    );
  }
  const leaves = swapping(list) && version === list.served;
  if (leaves || !MAY_SERVE.includes(state) || policy.broken !== undefined) return null;
  return (
    <div className="c-row">
      <Act
        of={of}
        name="Promote"
        title={`Let ${id} serve everybody?`}
        act={(reason) => policies.promote(version, { reason: asked(reason), expected })}
        onDone={onDone}
      >
        <p>
          {id} becomes the stable policy{expected === null ? "" : ` in place of ${nameOf(expected)}`} at once, whatever
          the votes would say. To let it in step by step and be judged, start a release of it instead.
        </p>
        <Ends list={list} />
      </Act>
    </div>
  );
}

/** Whatever moves the pointer ends the open release: what it was measured against no longer serves. */
function Ends({ list }: { list: PolicyList }) {
  const canary = canaryOf(list);
  return canary ? <p>The open release of {canary.id} ends, with nothing decided.</p> : null;
}
