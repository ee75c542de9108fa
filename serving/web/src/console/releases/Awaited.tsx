import type { Release } from "../../api/releases";
import { When } from "../parts/When";
import { awaited, bounds } from "./waiting";
import { waitsForOperator } from "./words";

interface AwaitedProps {
  release: Release;
  /** Whether releases are; where that is told already, or not known, it is left out. */
  frozen?: boolean;
}

/** What an open release waits for, what holds it up, and how much of its time has passed; nothing where nothing does. */
export function Awaited({ release, frozen = false }: AwaitedProps) {
  const waits = awaited(release);
  const alarm = release.self_test?.alarm === true;
  const times = bounds(release);
  if (!release.open || !(waits || release.paused || frozen || alarm || times.length > 0)) return null;
  return (
    <div className="c-remark">
      {waits && <p>{waits}</p>}
      {release.paused && <Held release={release} />}
      {frozen && <p>Releases are frozen: it takes no step by itself. If it proves worse it is still rolled back.</p>}
      {alarm && <p>The self-test of the votes alarms: until it is reset no vote decides anything.</p>}
      {times.length > 0 && <p className="small">{times.join("; ")}.</p>}
    </div>
  );
}

function Held({ release }: { release: Release }) {
  const since = release.paused_at !== null && <When time={release.paused_at} />;
  if (waitsForOperator(release)) {
    return <p>Its plan waits for an operator, who passes the step. It came there {since}.</p>;
  }
  const why = release.paused_why ? `: ${release.paused_why}` : "";
  return (
    <p>
      Paused {since} by {release.paused_by || "somebody"}
      {why}; to resume it goes on.
    </p>
  );
}
