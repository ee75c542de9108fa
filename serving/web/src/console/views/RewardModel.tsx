import { nameOf, policies, type Bounds } from "../../api/policies";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import type { ViewProps } from "../Console";
import { Loaded } from "../parts/Loaded";
import { Plot } from "../parts/Plot";
import { Table, type Column } from "../parts/Table";
import { usePolled } from "../parts/usePolled";
import { figure, percent, ranged } from "../parts/words";
import { When } from "../parts/When";
import { fitted, over, type Fitted } from "../reward/fits";
import { Reliability } from "../reward/Reliability";

const OVER = [
  ["accuracy", "Accuracy", "share of pairs", "share"],
  ["ece", "Calibration error (ECE)", "probability", "share"],
  ["log_loss", "Negative log-likelihood", "nats per pair", "number"],
] as const;

/** How good the judge of PPO is: one version in full, the newest unless one is named, and all of them over time. */
export function RewardModel({ id }: ViewProps) {
  const polled = usePolled((signal) => policies.list(signal), 10_000);
  const named = /^(?:policy-v)?(\d{1,9})$/.exec(id ?? "")?.[1];
  return (
    <Loaded polled={polled}>
      {({ data }) => {
        const versions = fitted(data);
        const chosen = named === undefined ? versions.at(-1)?.version : Number(named);
        if (chosen === undefined) return <p className="muted">No reward model yet: the first comes with a round.</p>;
        return (
          <>
            <Reliability version={chosen} />
            {versions.length > 0 && <Versions versions={versions} chosen={chosen} />}
          </>
        );
      }}
    </Loaded>
  );
}

function Versions({ versions, chosen }: { versions: Fitted[]; chosen: number }) {
  const bounds = (of: (fit: Fitted["fit"]) => Bounds, show: (value: number) => string) => ({ fit }: Fitted) => (
    <>
      {show(of(fit).mean)} <span className="muted small">({ranged(of(fit), show)})</span>
    </>
  );
  const columns: Column<Fitted>[] = [
    {
      name: "version",
      cell: ({ version }) => (
        <Link to={consolePath("reward-model", nameOf(version))} aria-current={version === chosen || undefined}>
          {nameOf(version)}
        </Link>
      ),
    },
    { name: "accuracy", cell: bounds(({ accuracy }) => accuracy, percent), numeric: true },
    { name: "ECE", cell: bounds(({ ece }) => ece, percent), numeric: true },
    { name: "NLL", cell: bounds(({ log_loss }) => log_loss, figure), numeric: true },
    { name: "pairs", cell: ({ fit }) => figure(fit.pairs), numeric: true },
    { name: "made", cell: ({ created }) => created !== null && <When time={created} /> },
  ];
  return (
    <section aria-label="Over versions">
      <h2>Over versions</h2>
      <div className="c-columns">
        {OVER.map(([name, title, unit, kind]) => (
          <div key={name} className="c-card">
            <Plot
              title={title}
              series={[{ name: title, points: over(versions, name), as: "dotted line" }]}
              x={{ name: "policy version", kind: "whole" }}
              y={{ name: unit, kind }}
              height={190}
            />
          </div>
        ))}
      </div>
      <Table
        label="Reward models"
        columns={columns}
        rows={[...versions].reverse()}
        id={({ version }) => version}
        empty=""
      />
    </section>
  );
}
