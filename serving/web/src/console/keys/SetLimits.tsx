import { useState } from "react";
import { type Key, keys } from "../../api/oversight";
import { Act } from "../parts/Act";
import { Bounds } from "./fields";
import { boundsOf, changed, typedOf, UNBOUND } from "./limits";

interface SetLimitsProps {
  row: Key;
  isOwn: boolean;
  onDone: () => void;
}

/** Each limit as it stands, to be typed over; what is left alone is not written, so nobody else's change is undone. */
export function SetLimits({ row: { id, name, limits }, isOwn, onDone }: SetLimitsProps) {
  const [typed, setTyped] = useState(UNBOUND);
  const wish = changed(boundsOf(typed), limits);
  return (
    <Act
      of={`${id} ${JSON.stringify(limits)}`}
      name="Set limits"
      title={`Limits of the key of ${name}`}
      reason="none"
      onOpen={() => setTyped(typedOf(limits))}
      act={async () => Object.keys(wish).length > 0 && keys.limit(id, wish)}
      onDone={onDone}
    >
      <p>They hold within seconds; an empty field is no limit. What the key used today while it had a limit counts.</p>
      {isOwn && <p>It is your own key: this page asks by it too.</p>}
      <Bounds typed={typed} onChange={setTyped} />
    </Act>
  );
}
