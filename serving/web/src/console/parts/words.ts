import type { Axis, Point } from "./Plot";

/** A number for people: four figures, and no more. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
  const shown = value.toPrecision(4);
  return shown.includes("e") ? shown : String(Number(shown));
}

/** Why something was done here, where nobody wrote a reason. */
export const asked = (reason: string): string => reason || "asked for in the console";

/** How long something took: two figures, and milliseconds below a second. */
export function taken(seconds: number): string {
  const two = (value: number) => Number(value.toPrecision(2)).toLocaleString("en");
  return seconds < 1 ? `${two(seconds * 1000)} ms` : `${two(seconds)} s`;
}

/** Seconds as 0:42, 12:05 or 1:02:03. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (part: number) => String(part).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${two(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(amount: number): string {
  const power = amount < 1 ? 0 : Math.min(Math.floor(Math.log2(amount) / 10), SIZES.length - 1);
  return `${Number((amount / 1024 ** power).toPrecision(3))} ${SIZES[power]}`;
}

/** An interval in words, without its middle. */
export const ranged = ({ low, high }: { low: number; high: number }, show: (end: number) => string = figure): string =>
  `${show(low)} to ${show(high)}`;

/** A share, here and all over the console: 62.5%, and 62% without a figure that says nothing. */
export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits).replace(/\.0$/, "")}%`;

const SHARES = /\b(accuracy|agreement|ece)\b/;

/** A figure by what it is of: one that is a share reads as such. */
export const measured = (name: string, value: number): string => (SHARES.test(name) ? percent(value) : figure(value));

/** A place on an axis. */
export function onAxis({ kind }: Axis, value: number): string {
  if (kind === "time") return new Date(value * 1000).toLocaleString();
  return kind === "share" ? percent(value) : figure(value);
}

/** A point's value, and its interval where it has one. */
export function withInterval({ y, low, high }: Point, axis: Axis): string {
  const show = (value: number) => onAxis(axis, value);
  return low == null || high == null ? show(y) : `${show(y)} (${ranged({ low, high }, show)})`;
}
