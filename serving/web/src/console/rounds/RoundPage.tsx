import { useState } from "react";
import { isOpen, rounds, type Round } from "../../api/rounds";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { Badge } from "../parts/Badge";
import { Figure, Figures } from "../parts/Figure";
import { Loaded } from "../parts/Loaded";
import { usePolled } from "../parts/usePolled";
import { When } from "../parts/When";
import { CancelRound } from "./CancelRound";
import { Course } from "./Course";
import { GateChecks } from "./GateChecks";
import { Measured } from "./Measured";
import { Stages } from "./Stages";
import { silentSince, took, TONES } from "./words";

const LIVE_MS = 1000;

export function RoundPage({ id }: { id: number }) {
  const [open, setOpen] = useState(true);
  const polled = usePolled(
    async (signal) => {
      const [round, course] = await Promise.all([rounds.get(id, signal), rounds.course(id, signal)]);
      setOpen(isOpen(round));
      return { round, course: course.data };
    },
    open ? LIVE_MS : null,
  );
  return (
    <Loaded polled={polled}>
      {({ round, course }) => (
        <>
          <section>
            <div className="c-row">
              <h2>Round {round.id}</h2>
              <Badge tone={TONES[round.state]}>{round.state}</Badge>
              {round.reason && <span>{round.reason}</span>}
            </div>
            <Stages round={round} />
            {isOpen(round) && <CancelRound round={round} onDone={() => void polled.refresh()} />}
          </section>
          <Facts round={round} />
          <Course round={round} course={course} />
          <GateChecks metrics={round.metrics["gate"]} />
          <Measured round={round} />
          <p>
            <Link to={consolePath("rounds")}>All rounds</Link>
          </p>
        </>
      )}
    </Loaded>
  );
}

function Facts({ round }: { round: Round }) {
  const made = round.policy_version;
  const silent = silentSince(round);
  return (
    <Figures>
      <Figure name="began" value={<When time={round.created} />} note={`by ${round.trigger}, ${round.actor}`} />
      <Figure name={round.finished === null ? "has taken" : "took"} value={took(round)} />
      <Figure
        name="policy"
        value={made === null ? (isOpen(round) ? "none yet" : "none") : <Link to={consolePath("policies", made)}>policy-v{made}</Link>}
      />
      {silent !== null && (
        <Figure
          name="worker"
          value={<Badge tone="bad">none is at it</Badge>}
          note={
            <>
              the last one was heard of <When time={silent} />; another goes on from its last checkpoint
            </>
          }
        />
      )}
      {round.attempts > 1 && <Figure name="attempts at this stage" value={round.attempts} />}
      {round.restarts > 0 && <Figure name="begun anew" value={round.restarts} note="because data was erased" />}
    </Figures>
  );
}
