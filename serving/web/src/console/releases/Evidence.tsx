import { releases, type EvidencePoint, type Release } from "../../api/releases";
import { Loaded } from "../parts/Loaded";
import { Plot } from "../parts/Plot";
import { usePolled } from "../parts/usePolled";
import { percent } from "../parts/words";
import { evidenceFor, shareOfEvidence } from "./words";

const EVERY_MS = 10_000;

/** How the votes came to say what they say, one by one. */
export function Evidence({ release }: { release: Release }) {
  const every = release.open ? EVERY_MS : null;
  const polled = usePolled((signal) => releases.evidence(release.id, signal), every, String(release.id));
  return (
    <section>
      <h2>Evidence</h2>
      <p className="muted small">
        An e-process: read at any time, it reaches the threshold by chance in at most{" "}
        {percent(release.plan.alpha / 2)} of releases that it should not decide so. What counts is for
        whoever is ahead, and only what a plot of a few raters could not have made of the votes.
      </p>
      <Loaded polled={polled}>
        {({ data, threshold }) => (
          <div className="c-columns">
            <Plot
              title="Evidence, as the log of an e-value"
              series={[
                { name: "better", points: over(data, ({ log_e_better }) => log_e_better) },
                { name: "worse", points: over(data, ({ log_e_worse }) => log_e_worse) },
                // Last, and so on top: where no vote is taken off it runs along one of the others.
                { name: "what counts", points: over(data, ({ log_e }) => log_e) },
              ]}
              x={VOTES}
              y={{ name: "log e" }}
              rules={[{ name: `decides at ${threshold.toFixed(2)}`, y: threshold }]}
              empty={NO_VOTES}
            />
            <Plot
              title="Win rate of the candidate, with its confidence band"
              series={[
                {
                  name: "win rate",
                  points: data.map(({ vote, win_rate: { value, low, high } }) => ({ x: vote, y: value, low, high })),
                },
              ]}
              x={VOTES}
              y={{ name: "share of decisive votes", kind: "share", domain: [0, 1] }}
              rules={[{ name: "as good as stable", y: 0.5 }]}
              empty={NO_VOTES}
            />
          </div>
        )}
      </Loaded>
    </section>
  );
}

const VOTES = { name: "votes counted", kind: "whole" } as const;
const NO_VOTES = "No vote has counted yet.";

const over = (data: EvidencePoint[], of: (point: EvidencePoint) => number) =>
  data.map((point) => ({ x: point.vote, y: of(point) }));

/** How much of what a decision needs is there. */
export function Progress({ release }: { release: Release }) {
  if (release.evidence === null) return <>–</>;
  const { log_e, threshold } = release.evidence;
  const needed = threshold.toFixed(2);
  // Below nothing the votes speak for neither.
  const told = log_e > 0 ? `${log_e.toFixed(2)} of ${needed} for ${evidenceFor(release)}` : `none of ${needed}`;
  return (
    <span className="c-gauge">
      <meter min={0} max={1} value={shareOfEvidence(release.evidence)} aria-label={`Evidence: ${told}`} />
      <span className="small">{told}</span>
    </span>
  );
}
