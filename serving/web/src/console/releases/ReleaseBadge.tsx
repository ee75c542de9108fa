import type { Release, ReleaseState } from "../../api/releases";
import { Badge, type Tone } from "../parts/Badge";
import { waitsForOperator } from "./words";

const TONES: Record<ReleaseState, Tone> = {
  pending: "busy",
  canary: "busy",
  promoted: "good",
  rolled_back: "bad",
  inconclusive: "plain",
  aborted: "plain",
  replaced: "plain",
};

type Where = Pick<Release, "state" | "is" | "open" | "paused" | "proposed">;

export function ReleaseBadge({ release }: { release: Where }) {
  const { state, open, paused, proposed } = release;
  const held = waitsForOperator(release) ? "waiting" : "paused";
  const word = open && proposed ? "proposed" : open && paused ? held : state.replace("_", " ");
  return <Badge tone={open && paused && !proposed ? "plain" : TONES[state]}>{word}</Badge>;
}
