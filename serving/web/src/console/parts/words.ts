import { figure } from "./Plot";

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
export const ranged = ({ low, high }: { low: number; high: number }): string => `${figure(low)} to ${figure(high)}`;
