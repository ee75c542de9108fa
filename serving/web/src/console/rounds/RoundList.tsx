import { useRef } from "react";
import { isOpen, rounds, type Round } from "../../api/rounds";
import { Link } from "../../app/Link";
import { consolePath, go } from "../../app/route";
import { Act } from "../parts/Act";
import { Badge } from "../parts/Badge";
import { Loaded } from "../parts/Loaded";
import { NumberedTable } from "../parts/NumberedTable";
import type { Column } from "../parts/Table";
import { usePolled } from "../parts/usePolled";
import { When } from "../parts/When";
import { STAGE_NAMES, stepsOf, took, TONES } from "./words";

const COLUMNS: Column<Round>[] = [
  { name: "round", cell: ({ id }) => <Link to={consolePath("rounds", id)}>round {id}</Link> },
  { name: "state", cell: ({ state }) => <Badge tone={TONES[state]}>{state}</Badge> },
  { name: "stage", cell: stageOf },
  { name: "began", cell: ({ created }) => <When time={created} /> },
  { name: "took", cell: took, numeric: true },
  { name: "policy", cell: ({ policy_version }) => policy_version !== null && <Made version={policy_version} /> },
  { name: "begun by", cell: ({ trigger, actor }) => (actor && actor !== trigger ? `${trigger} (${actor})` : trigger) },
  { name: "what became of it", cell: ({ reason }) => reason },
];

export function RoundList() {
  const polled = usePolled((signal) => rounds.list(signal), 2000);
  return (
    <Loaded polled={polled}>
      {(listed) => (
        <section>
          <div className="c-row">
            <StartRound open={listed.data.find(isOpen)} frozen={listed.frozen} />
            {listed.frozen && <Badge tone="bad">learning is frozen: no round starts by itself</Badge>}
          </div>
          <NumberedTable
            newest={listed}
            list={rounds.list}
            label="Rounds"
            columns={COLUMNS}
            empty="No round has been run yet."
          />
        </section>
      )}
    </Loaded>
  );
}

/** Leads to the round. One at a time: which one is open is said in place of the button. */
export function StartRound({ open, frozen }: { open: Round | undefined; frozen: boolean }) {
  const begun = useRef<number>(0);
  if (open) {
    return (
      <p>
        <Link to={consolePath("rounds", open.id)}>Round {open.id}</Link> is open already: the next can be started after
        it.
      </p>
    );
  }
  return (
    <Act
      of="a round"
      name="Start a round"
      title="Start a round now?"
      reason="none"
      primary
      act={async () => (begun.current = (await rounds.start()).id)}
      onDone={() => begun.current && go(consolePath("rounds", begun.current))}
    >
      <p>
        It trains on what has been said up to now: SFT, reward model, PPO, gate. What passes the gate is published, and
        released as the installation's settings say. If one was begun meanwhile, nothing is started, and you see that one.
      </p>
      {frozen && <p>Learning is frozen: no round starts by itself. This one does, by your hand, and is finished.</p>}
    </Act>
  );
}

function stageOf({ state, stage, progress }: Round): string {
  const steps = state === "running" ? stepsOf(progress) : "";
  return [STAGE_NAMES[stage], steps].filter(Boolean).join(", ");
}

const Made = ({ version }: { version: number }) => (
  <Link to={consolePath("policies", version)}>policy-v{version}</Link>
);
