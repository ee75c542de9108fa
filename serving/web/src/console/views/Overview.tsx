import { releases } from "../../api/releases";
import type { Round } from "../../api/rounds";
import { status, type NextRound } from "../../api/status";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { Health } from "../overview/Health";
import "../overview/overview.css";
import { Switches } from "../overview/Switches";
import { Badge } from "../parts/Badge";
import { Cause } from "../parts/Cause";
import { Loaded } from "../parts/Loaded";
import { usePolled } from "../parts/usePolled";
import { When } from "../parts/When";
import { figure } from "../parts/words";
import { Awaited } from "../releases/Awaited";
import { StartRound } from "../rounds/RoundList";
import "../rounds/rounds.css";
import { Stages } from "../rounds/Stages";
import { TONES } from "../rounds/words";

/** At a glance: does it serve, does it learn, is something being released, and may it do so by itself. */
export function Overview() {
  const polled = usePolled((signal) => status.get(signal), 2000);
  return (
    <Loaded polled={polled}>
      {(facts) => (
        <>
          <Health facts={facts} />
          <div className="c-columns">
            <OpenRound
              round={facts.round}
              next={facts.next_round}
              frozen={facts.learning_frozen === true}
              unknown={facts.reasons.round}
            />
            <div className="c-stack">
              <OpenRelease id={facts.release} unknown={facts.reasons.release} />
              <Switches facts={facts} onDone={() => void polled.refresh()} />
            </div>
          </div>
          {facts.version !== null && <p className="muted small">Ratchet {facts.version}</p>}
        </>
      )}
    </Loaded>
  );
}

interface Unknown {
  /** Why nobody can say whether there is one. */
  unknown: string | undefined;
}

interface Rounds extends Unknown {
  round: Round | null;
  next: NextRound | null;
  frozen: boolean;
}

function OpenRound({ round, next, frozen, unknown }: Rounds) {
  return (
    <section className="c-card" aria-labelledby="learning">
      <h2 id="learning">Learning</h2>
      {round === null ? (
        <>
          <None what="round" unknown={unknown} />
          {next && <Ahead next={next} frozen={frozen} />}
          <div className="c-row">
            <StartRound open={undefined} frozen={frozen} />
            <Link to={consolePath("rounds")}>Past rounds</Link>
          </div>
        </>
      ) : (
        <>
          <p className="c-row">
            <Link to={consolePath("rounds", round.id)}>Round {round.id}</Link>
            <Badge tone={TONES[round.state]}>{round.state}</Badge>
            {round.reason && <span className="small">{round.reason}</span>}
          </p>
          <Stages round={round} />
        </>
      )}
    </section>
  );
}

/** How far off the next round is. */
function Ahead({ next: { judgements, needed, scheduled }, frozen }: { next: NextRound; frozen: boolean }) {
  const new_ones = `${figure(judgements)} of ${figure(needed)} new judgements.`;
  if (frozen) return <p>{new_ones}</p>;
  return (
    <p>
      {new_ones} The next round begins by itself at {figure(needed)}
      {scheduled !== null && (
        <>
          , or <When time={scheduled} />
        </>
      )}
      . It learns from what was said before, too.
    </p>
  );
}

const None = ({ what, unknown }: { what: string } & Unknown) =>
  unknown ? (
    <div>
      Unknown: <Cause reason={unknown} />
    </div>
  ) : (
    <p>No {what} is open.</p>
  );

function OpenRelease({ id, unknown }: { id: number | null } & Unknown) {
  return (
    <section className="c-card" aria-labelledby="releasing">
      <h2 id="releasing">Release</h2>
      {id === null ? (
        <div className="c-row">
          <None what="release" unknown={unknown} />
          <Link to={consolePath("releases")}>Past releases</Link>
        </div>
      ) : (
        <ReleaseLine id={id} />
      )}
    </section>
  );
}

function ReleaseLine({ id }: { id: number }) {
  const polled = usePolled((signal) => releases.get(String(id), signal), 5000, String(id));
  return (
    <Loaded polled={polled}>
      {(release) => (
        <>
          <p>
            <Link to={consolePath("releases", id)}>Release {id}</Link>: policy-v{release.candidate} beside policy-v
            {release.stable}, {release.is}.{release.says && <span className="muted"> {release.says}</span>}
          </p>
          <Awaited release={release} />
        </>
      )}
    </Loaded>
  );
}
