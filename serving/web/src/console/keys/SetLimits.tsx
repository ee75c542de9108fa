import { useState } from "react";
import { type Key, type KeyChange, keys } from "../../api/oversight";
import { Act } from "../parts/Act";
import { Choice, type Options } from "../parts/Choice";
import { Bounds, DAYS, endOf } from "./fields";
import { boundsOf, changed, typedOf, UNBOUND } from "./limits";

interface SetLimitsProps {
  row: Key;
  isOwn: boolean;
  onDone: () => void;
}

const AS_IT_IS = "as it is";
const ENDS: Options = [[AS_IT_IS, "as it stands"], ["", "never"], ...DAYS];

/** Its end, and each limit as it stands, to be typed over; what is left alone is not written, so nobody else's change is undone. */
export function SetLimits({ row: { id, name, limits, expires }, isOwn, onDone }: SetLimitsProps) {
  const [typed, setTyped] = useState(UNBOUND);
  const [end, setEnd] = useState(AS_IT_IS);
  const bounds = changed(boundsOf(typed), limits);
  const wish: KeyChange = {
    ...(Object.keys(bounds).length > 0 && { limits: bounds }),
    ...(end !== AS_IT_IS && { expires: endOf(end).expires ?? null }),
  };
  return (
    <Act
      of={`${id} ${JSON.stringify(limits)} ${expires}`}
      name="Set limits"
      title={`Limits of the key of ${name}`}
      reason="none"
      onOpen={() => (setTyped(typedOf(limits)), setEnd(AS_IT_IS))}
      act={async () => Object.keys(wish).length > 0 && keys.change(id, wish)}
      onDone={onDone}
    >
      <p>They hold within seconds; an empty field is no limit. What the key used today while it had a limit counts.</p>
      {isOwn && <p>It is your own key: this page asks by it too.</p>}
      <Choice label="Expires" value={end} onChange={setEnd} options={ENDS} />
      <Bounds typed={typed} onChange={setTyped} />
    </Act>
  );
}
