/** The one file that knows the library of plots: it is fetched when the first plot is shown. */
import { areaY, axisX, axisY, dot, gridY, lineY, link, plot, ruleX, ruleY, text, tip, pointerX } from "@observablehq/plot";
import type { Axis, PlotProps, Point, Rule, Series } from "./Plot";
import { onAxis, percent, withInterval } from "./words";

type Marks = NonNullable<NonNullable<Parameters<typeof plot>[0]>["marks"]>;

const colour = (at: number) => `var(--series-${at})`;
/** Lines differ by more than their colour; the legend has the same (.c-series-1). */
const DASHES = ["none", "7 3", "2 3", "9 3 2 3"];
const QUIET = "var(--muted)";

/** An SVG element that follows the theme, since its colours are the page's own. */
export function draw({ title, series, x, y, rules = [], diagonal, height = 220 }: PlotProps, width: number): Element {
  const drawn = plot({
    width,
    height,
    inset: 4,
    marginLeft: 48,
    marginBottom: 34,
    marginTop: 22,
    style: { background: "none", color: "inherit", fontFamily: "inherit", fontSize: "12px", overflow: "visible" },
    ariaLabel: title,
    x: { type: x.kind === "time" ? "time" : "linear", ...extent(x, series, (point) => [point.x], ruled(rules, "x")) },
    y: { ...extent(y, series, (point) => [point.y, point.low, point.high], ruled(rules, "y")), nice: !y.domain },
    marks: [
      gridY({ stroke: "var(--line)", strokeOpacity: 1, ticks: height / 44 }),
      axisX({ label: x.name, labelAnchor: "center", labelArrow: "none", color: QUIET, ...ticksAlong(x, series, width) }),
      axisY({ label: y.name, labelArrow: "none", color: QUIET, tickSize: 0, ticks: height / 44, ...inPercent(y) }),
      ...(diagonal ? [slope(x, y)] : []),
      ...rules.flatMap(ruleOf),
      ...series.flatMap((each, at) => marksOf(each, at, x)),
      tipOf(series, x, y),
    ],
  });
  drawn.setAttribute("role", "img");
  drawn.querySelectorAll("g[aria-label]").forEach(unnamed);
  return drawn;
}

/** To who listens a plot is one image, and its table says the rest: what the library calls its parts names nothing. */
function unnamed(part: Element): void {
  part.setAttribute("data-mark", part.getAttribute("aria-label")!);
  part.removeAttribute("aria-label");
}

const placed = (x: Axis) => (point: Point) => (x.kind === "time" ? new Date(point.x * 1000) : point.x);

function marksOf({ points, as = "line" }: Series, at: number, x: Axis): Marks {
  const place = placed(x);
  const ranged = points.filter(({ low, high }) => low != null && high != null);
  const curve = as === "step" ? "step-after" : "linear";
  const marks: Marks = [];
  if (as === "dots" || as === "dotted line") {
    marks.push(ruleX(ranged, { x: place, y1: "low", y2: "high", stroke: colour(at), strokeWidth: 1.5 }));
  } else {
    marks.push(areaY(ranged, { x: place, y1: "low", y2: "high", fill: colour(at), fillOpacity: 0.16, curve }));
  }
  if (as !== "dots") {
    const line = { stroke: colour(at), strokeWidth: 1.8, strokeDasharray: DASHES[at % DASHES.length]!, curve } as const;
    marks.push(lineY(points, { x: place, y: "y", ...line }));
  }
  // A line of one point would not be seen.
  if (as === "dots" || as === "dotted line" || points.length === 1) {
    marks.push(dot(points, { x: place, y: "y", r: 3.5, fill: colour(at), stroke: "var(--raised)" }));
  }
  return marks;
}

/** One for all series, or theirs would lie on each other. */
const tipOf = (series: readonly Series[], x: Axis, y: Axis) =>
  tip(
    tipsOf(series, x, y),
    pointerX({ x: placed(x), y: "y", title: "says", fill: "var(--raised)", stroke: "var(--line)" }),
  );

/** At each place the highest point, and what all series have there. */
export function tipsOf(series: readonly Series[], x: Axis, y: Axis): (Point & { says: string })[] {
  const at = new Map<number, { y: number; lines: string[] }>();
  for (const { name, points } of series) {
    for (const point of points) {
      const here = at.get(point.x) ?? { y: -Infinity, lines: [`${x.name}: ${onAxis(x, point.x)}`] };
      here.lines.push(`${series.length > 1 ? name : y.name}: ${withInterval(point, y)}`);
      at.set(point.x, { ...here, y: Math.max(here.y, point.y) });
    }
  }
  return [...at].map(([place, { y: top, lines }]) => ({ x: place, y: top, says: lines.join("\n") }));
}

function ruleOf(rule: Rule): Marks {
  const look = { stroke: QUIET, strokeDasharray: "5 4" };
  const words = { text: [rule.name], fill: QUIET, stroke: "var(--bg)", strokeWidth: 4 };
  if ("y" in rule) return [ruleY([rule.y], look)]; // the legend names it: here its name would lie on the curves
  return [
    ruleX([rule.x], look),
    text([rule.x], { ...words, x: [rule.x], frameAnchor: "top", textAnchor: "start", dx: 5 }),
  ];
}

function slope(x: Axis, y: Axis) {
  const [from, to] = x.domain ?? y.domain ?? [0, 1];
  return link([0], { x1: from, y1: from, x2: to, y2: to, stroke: QUIET, strokeDasharray: "5 4" });
}

const ruled = (rules: readonly Rule[], axis: "x" | "y"): number[] =>
  rules.flatMap((rule) => (axis === "x" ? ("x" in rule ? [rule.x] : []) : "y" in rule ? [rule.y] : []));

/** What the points need, widened to what the axis shows at least and to the rules. */
function extent(axis: Axis, series: readonly Series[], of: (point: Point) => (number | null | undefined)[], at: number[]) {
  const values = [
    ...series.flatMap(({ points }) => points.flatMap(of)).filter((value) => value != null && Number.isFinite(value)),
    ...(axis.domain ?? []),
    ...at,
  ] as number[];
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = low === high ? Math.abs(low) || 1 : 0;
  const ends = [low - room / 2, high + room / 2];
  return { domain: axis.kind === "time" ? ends.map((end) => new Date(end * 1000)) : ends };
}

const inPercent = ({ kind }: Axis) => (kind === "share" ? { tickFormat: (value: number) => percent(value) } : {});

/** As many as there is room for; of whole numbers none between. */
function ticksAlong(x: Axis, series: readonly Series[], width: number) {
  const most = Math.max(2, Math.floor(width / 80));
  if (x.kind !== "whole") return { ticks: most, ...inPercent(x) };
  const places = series.flatMap(({ points }) => points.map((point) => point.x));
  const ticks = wholeTicks(Math.min(...places), Math.max(...places), most);
  return { ticks, tickFormat: (value: number) => value.toLocaleString("en") };
}

/** Every 1st, 2nd, 5th, 10th, 20th … whole number from `low` to `high`. */
export function wholeTicks(low: number, high: number, most: number): number[] {
  let step = 1;
  for (let at = 0; (high - low) / step > most; at += 1) step = [2, 5, 10][at % 3]! * 10 ** Math.floor(at / 3);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, at) => (first + at) * step);
}
