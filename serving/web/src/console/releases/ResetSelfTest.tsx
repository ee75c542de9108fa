import { releases } from "../../api/releases";
import { Act } from "../parts/Act";

/** For who has found the fault behind an alarm. */
export const ResetSelfTest = ({ onDone }: { onDone?: () => void }) => (
  <Act
    of="the self-test"
    name="Reset the self-test"
    title="Reset the self-test of the votes?"
    reason="none"
    act={releases.resetSelfTest}
    {...(onDone && { onDone })}
  >
    <p>
      In blind votes the stable policy did not tie with itself, so something else than the answers decided them. Once that
      fault is found: only votes from now on count in the test, the alarm is over, and votes decide again.
    </p>
  </Act>
);
