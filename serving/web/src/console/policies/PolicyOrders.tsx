import { nameOf, policies, type Policy, type PolicyList } from "../../api/policies";
import { Act } from "../parts/Act";
import { MAY_SERVE } from "./words";

interface OrdersProps {
  policy: Policy;
  list: PolicyList;
  onDone: () => void;
}

/** To serve a version at once, without a release, or to go back from it. */
export function PolicyOrders({ policy, list, onDone }: OrdersProps) {
  const { version, state, id } = policy;
  const expected = list.stable;
  const of = `${version === expected}/${expected}`;
  if (version === expected) {
    return (
      <div className="c-row">
        <Act
          of={of}
          name="Roll back"
          title={`Roll back ${id}?`}
          danger
          act={(reason) => policies.rollBack({ reason, expected })}
          onDone={onDone}
        >
          <p>
            {id} stops serving, and the version that was stable before it answers everybody again. Answers that are
            being written are finished.
          </p>
        </Act>
      </div>
    );
  }
  if (!MAY_SERVE.includes(state) || policy.broken !== undefined) return null;
  return (
    <div className="c-row">
      <Act
        of={of}
        name="Promote"
        title={`Let ${id} serve everybody?`}
        act={(reason) => policies.promote(version, { reason, expected })}
        onDone={onDone}
      >
        <p>
          {id} becomes the stable policy{expected === null ? "" : ` in place of ${nameOf(expected)}`} at once, whatever
          the votes would say. To let it in step by step and be judged, start a release of it instead.
        </p>
      </Act>
    </div>
  );
}
