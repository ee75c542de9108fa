import { nameOf, policies, type Bin, type Fit } from "../../api/policies";
import { Figure, Figures } from "../parts/Figure";
import { Loaded } from "../parts/Loaded";
import { Plot } from "../parts/Plot";
import { Table, type Column } from "../parts/Table";
import { usePolled } from "../parts/usePolled";
import { wilson } from "../parts/wilson";
import { figure, percent, ranged } from "../parts/words";

/** How sure one version's reward model is, and how often it is right. */
export function Reliability({ version }: { version: number }) {
  const polled = usePolled((signal) => policies.get(version, signal), null, nameOf(version));
  return (
    <Loaded polled={polled}>
      {({ reward_fit: fit }) =>
        fit === null ? (
          <p className="muted">{nameOf(version)} has no reward model of its own.</p>
        ) : (
          <Shown fit={fit} version={version} />
        )
      }
    </Loaded>
  );
}

function Shown({ fit, version }: { fit: Fit; version: number }) {
  const points = fit.bins.map((bin) => ({ x: bin.predicted, y: bin.observed, ...wilson(bin.observed, bin.pairs) }));
  const least = Math.min(0.5, ...points.map(({ low }) => low));
  return (
    <section aria-label={`Reward model of ${nameOf(version)}`}>
      <h2>{nameOf(version)}</h2>
      <p className="muted">
        On {figure(fit.pairs)} pairs of answers to {figure(fit.prompts)} prompts that it never saw; intervals of{" "}
        {percent(fit.confidence)} by prompt.
      </p>
      <FitFigures fit={fit} />
      <div className="c-columns">
        <div className="c-card">
          <Plot
            title="Reliability"
            series={[{ name: "people agreed", points, as: "dotted line" }]}
            x={{ name: "how sure the scores are of a winner", kind: "share", domain: [0.5, 1] }}
            y={{ name: "how often people preferred it", kind: "share", domain: [least, 1] }}
            diagonal="as sure as right"
            height={320}
          />
          <p className="muted small">
            On the dashed line it is as sure as it is right; below it, too sure. The bars are 95% intervals (Wilson), as
            if each pair were judged by itself.
          </p>
        </div>
        <div className="c-stack">
          <Table label="Pairs by confidence" columns={BINS} rows={fit.bins} id={(bin) => bin.predicted} empty="No bins." />
          {fit.lengths.length > 0 && (
            <Table label="By length" columns={LENGTHS} rows={fit.lengths} id={({ name }) => name} empty="" />
          )}
        </div>
      </div>
    </section>
  );
}

const BINS: Column<Bin>[] = [
  { name: "sure", cell: ({ predicted }) => percent(predicted), numeric: true },
  { name: "right", cell: ({ observed }) => percent(observed), numeric: true },
  { name: "95% interval", cell: ({ observed, pairs }) => ranged(wilson(observed, pairs), percent), numeric: true },
  { name: "pairs", cell: ({ pairs }) => figure(pairs), numeric: true },
];

const LENGTHS: Column<Fit["lengths"][number]>[] = [
  { name: "preferred is longer by, tokens", cell: ({ name }) => name },
  { name: "accuracy", cell: ({ accuracy }) => percent(accuracy), numeric: true },
  { name: "pairs", cell: ({ pairs }) => figure(pairs), numeric: true },
];

/** Raters who are right with probability q agree in q² + (1 − q)²; nobody is right more often than most of them. */
const bestAccuracy = (agreement: number) => (1 + Math.sqrt(Math.max(2 * agreement - 1, 0))) / 2;

function FitFigures({ fit }: { fit: Fit }) {
  const { accuracy, ece, log_loss, agreement } = fit;
  return (
    <Figures>
      <Figure name="accuracy" value={percent(accuracy.mean)} note={ranged(accuracy, percent)} />
      <Figure name="calibration error (ECE)" value={percent(ece.mean)} note={ranged(ece, percent)} />
      <Figure
        name="negative log-likelihood"
        value={figure(log_loss.mean)}
        note={`${ranged(log_loss)} nats per pair; knowing nothing: 0.693`}
      />
      <Figure
        name="two people agree"
        value={agreement && percent(agreement.mean)}
        note={
          agreement
            ? `${ranged(agreement, percent)}; accuracy can come to ${percent(bestAccuracy(agreement.mean))}`
            : "no pair was judged twice"
        }
      />
    </Figures>
  );
}
