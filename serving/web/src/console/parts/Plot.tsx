import { useEffect, useRef, useState } from "react";
import type { draw } from "./drawing";
import { onAxis, withInterval } from "./words";

export interface Point {
  x: number;
  y: number;
  /** Of its interval, where it has one. */
  low?: number | null;
  high?: number | null;
}

export interface Series {
  name: string;
  points: readonly Point[];
  /** A line has a band for its interval, a step holds until the next point, a dot has a bar. */
  as?: "line" | "step" | "dots" | "dotted line";
}

export interface Axis {
  name: string;
  /** Of a number; `time` is seconds since 1970, `whole` has no ticks between whole numbers, `share` is told in percent. */
  kind?: "number" | "whole" | "time" | "share";
  /** Shown at least; without it what the points need. */
  domain?: [number, number];
}

/** A line that something is measured against, across the plot. */
export type Rule = { name: string } & ({ x: number } | { y: number });

export interface PlotProps {
  title: string;
  /** In a line, where the title does not say it. */
  meaning?: string;
  series: readonly Series[];
  x: Axis;
  y: Axis;
  rules?: readonly Rule[];
  /** Where x and y are equal. */
  diagonal?: string;
  height?: number;
  /** Said in place of an empty plot. */
  empty?: string;
}

/** Few series over one axis. The table below it says the same in words and numbers. */
export function Plot(props: PlotProps) {
  const { title, meaning, series, rules = [], empty = "Nothing yet." } = props;
  const shown = series.filter(({ points }) => points.length > 0);
  const legend = series.length > 1 ? series.map(({ name }) => name) : [];
  const levels = (shown.length > 0 ? rules : []).filter((rule) => "y" in rule);
  return (
    <figure className="c-plot">
      <figcaption>
        <strong>{title}</strong>
        {legend.length + levels.length > 0 && (
          <span className="c-legend">
            {legend.map((name, at) => (
              <span key={name} className={`c-key c-series-${at}`}>
                {name}
              </span>
            ))}
            {levels.map(({ name }) => (
              <span key={name} className="c-key c-level">
                {name}
              </span>
            ))}
          </span>
        )}
        {meaning && <span className="muted small">{meaning}</span>}
      </figcaption>
      {shown.length === 0 ? <p className="muted small">{empty}</p> : <Drawn {...props} />}
      {shown.length > 0 && <Numbers {...props} />}
    </figure>
  );
}

type Drawing = { draw: typeof draw };

function Drawn(props: PlotProps) {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const [drawing, setDrawing] = useState<Drawing | "missing" | null>(null);
  useEffect(() => {
    let wanted = true;
    import("./drawing").then(
      (loaded) => wanted && setDrawing(loaded),
      () => wanted && setDrawing("missing"),
    );
    const watch = new ResizeObserver(([entry]) => setWidth(Math.round(entry!.contentRect.width)));
    watch.observe(box.current!);
    return () => {
      wanted = false;
      watch.disconnect();
    };
  }, []);
  const height = props.height ?? 220;
  useEffect(() => {
    if (drawing === null || drawing === "missing" || width === 0) return;
    box.current!.replaceChildren(drawing.draw({ ...props, height }, width));
    // Not at every poll: what is pointed at would lose its tip.
  }, [drawing, width, JSON.stringify(props)]);
  return (
    <>
      <div ref={box} className="c-drawn" style={{ minHeight: height }} />
      {drawing === "missing" && <p className="muted small">The plot could not be loaded: the numbers are below.</p>}
    </>
  );
}

function Numbers({ title, series, x, y, rules = [] }: PlotProps) {
  const [open, setOpen] = useState(false);
  const places = [...new Set(series.flatMap(({ points }) => points.map((point) => point.x)))].sort((a, b) => a - b);
  const at = series.map(({ points }) => new Map(points.map((point) => [point.x, point])));
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{title} in numbers</summary>
      {open && (
        <div className="c-table" role="region" aria-label={`${title} in numbers`} tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th scope="col">{x.name}</th>
                {series.map(({ name }) => (
                  <th key={name} scope="col" className="c-number">
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {places.map((place) => (
                <tr key={place}>
                  <th scope="row">{onAxis(x, place)}</th>
                  {at.map((points, which) => (
                    <td key={series[which]!.name} className="c-number">
                      {told(points.get(place), y)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {rules.map((rule) => (
        <p key={rule.name} className="small">
          {rule.name}: {"x" in rule ? onAxis(x, rule.x) : onAxis(y, rule.y)}
        </p>
      ))}
    </details>
  );
}

const told = (point: Point | undefined, axis: Axis): string => (point ? withInterval(point, axis) : "");
