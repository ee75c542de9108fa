import type { Release, ReleaseState } from "../../api/releases";
import { Badge, type Tone } from "../parts/Badge";

const TONES: Record<ReleaseState, Tone> = {
  pending: "busy",
  canary: "busy",
  promoted: "good",
  rolled_back: "bad",
  inconclusive: "plain",
  aborted: "plain",
  replaced: "plain",
};

type Where = Pick<Release, "state" | "open" | "paused" | "proposed">;

export function ReleaseBadge({ release: { state, open, paused, proposed } }: { release: Where }) {
  const word = open && proposed ? "proposed" : open && paused ? "paused" : state.replace("_", " ");
  return <Badge tone={open && paused && !proposed ? "plain" : TONES[state]}>{word}</Badge>;
}
