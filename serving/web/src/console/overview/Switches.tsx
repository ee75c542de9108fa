import { status, type Status } from "../../api/status";
import { Act } from "../parts/Act";
import { Badge } from "../parts/Badge";
import { Cause } from "../parts/Cause";
import { asked } from "../parts/words";

interface SwitchProps {
  what: string;
  frozen: boolean | null;
  /** Why nobody can say whether it is frozen. */
  unknown: string | undefined;
  /** What happens by itself while it is not frozen. */
  going: string;
  /** What stops, and what does not, once it is. */
  stops: string;
  freeze: (frozen: boolean, reason: string) => Promise<unknown>;
  onDone: () => void;
}

/** What changes the installation by itself can be stopped here, for a reason that stays in the audit trail. */
export function Switches({ facts, onDone }: { facts: Status; onDone: () => void }) {
  return (
    <section className="c-card" aria-labelledby="switches">
      <h2 id="switches">Switches</h2>
      <Switch
        what="learning"
        frozen={facts.learning_frozen}
        unknown={facts.reasons.learning_frozen}
        going="Rounds start by count and by schedule."
        stops="No round starts by itself. Serving goes on, an open round is finished, and one can be started by hand."
        freeze={status.freezeLearning}
        onDone={onDone}
      />
      <Switch
        what="releases"
        frozen={facts.releases_frozen}
        unknown={facts.reasons.releases_frozen}
        going="Candidates are let in and promoted as the settings say."
        stops="Nothing is released or promoted by itself. What proves worse is still rolled back."
        freeze={status.freezeReleases}
        onDone={onDone}
      />
    </section>
  );
}

function Switch({ what, frozen, unknown, going, stops, freeze, onDone }: SwitchProps) {
  const act = frozen ? "Unfreeze" : "Freeze";
  return (
    <div className="c-switch">
      <div>
        <strong className="c-name">{what}</strong>{" "}
        {frozen === null ? <Badge>unknown</Badge> : <Badge tone={frozen ? "bad" : "good"}>{frozen ? "frozen" : "on"}</Badge>}
        <div className="muted small">
          {frozen === null ? <>Unknown: <Cause reason={unknown ?? "no reason is given"} /></> : frozen ? stops : going}
        </div>
      </div>
      <Act
        of={String(frozen)}
        name={`${act} ${what}`}
        title={`${act} ${what}?`}
        danger={!frozen}
        disabled={frozen === null}
        act={(reason) => freeze(!frozen, asked(reason))}
        onDone={onDone}
      >
        <p>{frozen ? going : stops}</p>
      </Act>
    </div>
  );
}
