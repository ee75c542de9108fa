import { releases, type ReleaseInFull } from "../../api/releases";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { Figure, Figures } from "../parts/Figure";
import { Loaded } from "../parts/Loaded";
import { usePolled } from "../parts/usePolled";
import { When } from "../parts/When";
import { PolicyLink } from "../policies/PolicyLink";
import { Evidence, Progress } from "./Evidence";
import { Guardrails } from "./Guardrails";
import { History } from "./History";
import { Orders } from "./Orders";
import { ReleaseBadge } from "./ReleaseBadge";
import { Steps } from "./Steps";
import { percent, ranged } from "../parts/words";
import { atAllTimes, MODES, points, waitsFor, whereOf, whoseVotes } from "./words";

const EVERY_MS = 3_000;

/** `id` is a number or "current". */
export function ReleasePage({ id }: { id: string }) {
  const polled = usePolled((signal) => releases.get(id, signal), EVERY_MS, id);
  return (
    <>
      <p className="small">
        <Link to={consolePath("releases")}>All releases</Link>
      </p>
      <Loaded polled={polled}>{(release) => <Whole release={release} onDone={() => void polled.refresh()} />}</Loaded>
    </>
  );
}

function Whole({ release, onDone }: { release: ReleaseInFull; onDone: () => void }) {
  return (
    <>
      <Heading release={release} />
      {release.open && <Orders release={release} onDone={onDone} />}
      {release.state !== "pending" && <Measured release={release} />}
      <section>
        <h2>Steps</h2>
        <Steps release={release} />
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
      <Beside release={release} />
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
      {release.state === "pending" && <p className="c-remark">{waitsFor(release)}</p>}
      <p className="muted small">
        Begun <When time={created} /> by {actor}, {MODES[release.mode]}. Why: {reason}
      </p>
    </header>
  );
}

/** What the votes say so far, and what is still needed. */
function Measured({ release }: { release: ReleaseInFull }) {
  const { votes, win_rate, thumbs, says, open, outcome, forecast, still_needed, left_wins } = release;
  const decided = release.state === "promoted" || release.state === "rolled_back" || release.state === "inconclusive";
  const beyond = votes?.not_counted ? `, ${votes.not_counted} beyond what one rater may say` : "";
  const tally = votes && `${votes.won} won, ${votes.lost} lost, ${votes.tied} tied${beyond}`;
  return (
    <section>
      <h2>{open ? "So far" : decided ? "Decided by" : "What the votes said when it ended"}</h2>
      {says && (open || decided) && <p>{says}</p>}
      <Figures>
        <Figure name="Share of conversations" value={percent(release.weight)} />
        <Figure
          name="Votes"
          value={votes && votes.won + votes.lost + votes.tied}
          note={tally ?? `none counted yet, of ${whoseVotes(release.whose)}`}
        />
        {open && (outcome === null || outcome === "undecided") && (
          <Figure
            name="Votes still needed"
            value={still_needed === null ? null : `about ${still_needed}`}
            note={still_needed === null ? forecast : "as votes go so far"}
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
function Beside({ release: { engine, self_test } }: { release: ReleaseInFull }) {
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
            value={self_test.alarm ? "ALARM" : "ok"}
            note={`${self_test.says}; evidence ${self_test.log_e.toFixed(2)} of ${self_test.threshold.toFixed(2)}`}
          />
        )}
      </Figures>
    </section>
  );
}
