import { useEffect, useReducer } from "react";

const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["second", 60],
  ["minute", 60],
  ["hour", 24],
  ["day", 30],
  ["month", 12],
  ["year", Infinity],
];

/** How long ago, or in how long; the full time on hover. */
export function When({ time }: { time: number }) {
  const [, later] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    const timer = window.setInterval(later, 15_000);
    return () => window.clearInterval(timer);
  }, []);
  const at = new Date(time * 1000);
  return (
    <time dateTime={at.toISOString()} title={at.toLocaleString()}>
      {since(time - Date.now() / 1000)}
    </time>
  );
}

/** `seconds` from now in words, such as "3 minutes ago". */
export function since(seconds: number): string {
  if (Math.abs(seconds) < 5) return "just now";
  let amount = seconds;
  for (const [unit, size] of UNITS) {
    if (Math.abs(Math.round(amount)) < size) return new Intl.RelativeTimeFormat("en").format(Math.round(amount), unit);
    amount /= size;
  }
  return "";
}
