import { releases, type ReleaseInFull } from "../../api/releases";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { Badge } from "../parts/Badge";
import { Figure, Figures } from "../parts/Figure";
import { Loaded } from "../parts/Loaded";
import { usePolled } from "../parts/usePolled";
import { When } from "../parts/When";
import { PolicyLink } from "../policies/PolicyLink";
import { Settings } from "../policies/Settings";
import { Awaited } from "./Awaited";
import { Evidence, Progress } from "./Evidence";
import { Guardrails } from "./Guardrails";
import { History } from "./History";
import { Orders } from "./Orders";
import { ReleaseBadge } from "./ReleaseBadge";
import { ResetSelfTest } from "./ResetSelfTest";
import { Steps } from "./Steps";
import { percent, ranged } from "../parts/words";
import { atAllTimes, decidedByVotes, mayVote, MODES, points, whatVotesSay, whereOf, whoseVotes } from "./words";
import { neededAs } from "./waiting";

const EVERY_MS = 3_000;

/** `id` is a number or "current". */
export function ReleasePage({ id }: { id: string }) {
  const polled = usePolled((signal) => releases.get(id, signal), EVERY_MS, id);
  const frozen = usePolled(releases.frozen, EVERY_MS);
  return (
    <>
      <p className="small">
        <Link to={consolePath("releases")}>All releases</Link>
      </p>
      <Loaded polled={polled}>
        {(release) => <Whole release={release} frozen={frozen.value} onDone={() => void polled.refresh()} />}
      </Loaded>
    </>
  );
}

interface WholeProps {
  release: ReleaseInFull;
  /** While that is not known, undefined. */
  frozen: boolean | undefined;
  onDone: () => void;
}

function Whole({ release, frozen, onDone }: WholeProps) {
  return (
    <>
      <Heading release={release} />
      <Awaited release={release} {...(frozen && { frozen })} />
      {release.open && <Orders release={release} onDone={onDone} />}
      {release.state !== "pending" && <Measured release={release} />}
      <section>
        <h2>Steps</h2>
        <Steps release={release} />
        <Settings name="The plan that it began with" tree={rulesOf(release)} />
      </section>
      <Evidence release={release} />
      <section>
        <h2>Guardrails</h2>
        <p className="muted small">
          Counted in the conversations that each policy answers alone. Answers that stood side by side to be compared are
          not among them.
        </p>
        <Guardrails release={release} />
      </section>
      <Beside release={release} onDone={onDone} />
      <section>
        <h2>History</h2>
        <History lines={release.history} />
      </section>
    </>
  );
}

function Heading({ release }: { release: ReleaseInFull }) {
  const { candidate, stable, actor, reason, created, open, why } = release;
  return (
    <header className="c-heading">
      <h2>
        Release {release.id}: <PolicyLink version={candidate} /> beside <PolicyLink version={stable} />
      </h2>
      <p>
        <ReleaseBadge release={release} /> {open ? whereOf(release) : why}
      </p>
      <p className="muted small">
        Begun <When time={created} /> by {actor}, {MODES[release.mode]}. Why: {reason}
      </p>
    </header>
  );
}

/** Its plan without the steps, which are shown. */
function rulesOf({ plan: { steps: _, ...rules } }: ReleaseInFull): Record<string, unknown> {
  return rules;
}

/** What the votes say so far, and what is still needed. */
function Measured({ release }: { release: ReleaseInFull }) {
  const { votes, win_rate, thumbs, open, outcome, still_needed, left_wins } = release;
  const said = whatVotesSay(release);
  const whose = `of ${whoseVotes(release.whose)}`;
  const beyond = votes?.not_counted ? `; ${votes.not_counted} beyond what one rater may say` : "";
  const tally = votes && `${votes.won} won, ${votes.lost} lost, ${votes.tied} tied, ${whose}${beyond}`;
  return (
    <section>
      <h2>{open ? "So far" : decidedByVotes(release) ? "Decided by" : "What the votes said when it ended"}</h2>
      {said && <p>{said}</p>}
      <Figures>
        <Figure name="Share of conversations" value={percent(release.weight)} />
        <Figure
          name="Votes"
          value={votes && votes.won + votes.lost + votes.tied}
          note={tally ?? `none counted yet, ${whose}`}
        />
        <Figure name="Raters who voted" value={release.voters.voted} note={mayVote(release.voters)} />
        {open && (outcome === null || outcome === "undecided") && (
          <Figure
            name="Votes still needed"
            value={still_needed === null ? null : `about ${still_needed}`}
            note={neededAs(release)}
          />
        )}
        <Figure
          name="Win rate of the candidate"
          value={win_rate && percent(win_rate.value)}
          note={win_rate && `${ranged(win_rate, percent)}, ${atAllTimes(release.plan.alpha)}`}
        />
        <Figure name="Evidence" value={release.evidence && <Progress release={release} />} />
        <Figure name="Thumbs up, beside stable" value={thumbs && points(thumbs)} />
        <Figure
          name="Left answer preferred"
          value={left_wins && percent(left_wins.value)}
          note={left_wins && ranged(left_wins, percent)}
        />
      </Figures>
    </section>
  );
}

/** What carries the release: the candidate's engine, and the test of the votes themselves. */
function Beside({ release: { engine, self_test }, onDone }: { release: ReleaseInFull; onDone: () => void }) {
  if (engine === null && self_test === null) return null;
  return (
    <section>
      <h2>What it rests on</h2>
      <Figures>
        {engine && (
          <Figure
            name="The candidate's engine"
            value={engine.state ?? "wanted"}
            note={engine.cause ?? `holds policy-v${engine.version}`}
          />
        )}
        {self_test && (
          <Figure
            name="Self-test of the votes"
            value={self_test.alarm ? <Badge tone="bad">ALARM</Badge> : "ok"}
            note={`${self_test.says}; evidence ${self_test.log_e.toFixed(2)} of ${self_test.threshold.toFixed(2)}`}
          />
        )}
      </Figures>
      {self_test?.alarm && (
        <div className="c-row">
          <ResetSelfTest onDone={onDone} />
        </div>
      )}
    </section>
  );
}
