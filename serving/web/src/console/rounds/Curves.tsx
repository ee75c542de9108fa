import { useState } from "react";
import { Plot, type Point } from "../parts/Plot";

export interface Curve {
  title: string;
  unit: string;
  meaning?: string;
  /** What its steps are called. */
  along: "iteration" | "step";
  points: readonly Point[];
}

/** What one looks at first; the rest unfolds. What has no points is left out. */
export function Curves({ main, further }: { main: readonly Curve[]; further: readonly Curve[] }) {
  const [open, setOpen] = useState(false);
  const rest = further.filter(({ points }) => points.length > 0);
  return (
    <>
      <Plots curves={main.filter(({ points }) => points.length > 0)} />
      {rest.length > 0 && (
        <details className="c-fold" onToggle={(event) => setOpen(event.currentTarget.open)}>
          <summary>{rest.length === 1 ? "One more figure" : `${rest.length} more figures`} of PPO</summary>
          {open && <Plots curves={rest} />}
        </details>
      )}
    </>
  );
}

const Plots = ({ curves }: { curves: readonly Curve[] }) => (
  <div className="c-columns">
    {curves.map(({ title, unit, meaning, along, points }) => (
      <div key={title} className="c-card">
        <Plot
          title={title}
          {...(meaning && { meaning })}
          series={[{ name: title, points }]}
          x={{ name: along, kind: "whole" }}
          y={{ name: unit }}
          height={190}
        />
      </div>
    ))}
  </div>
);
