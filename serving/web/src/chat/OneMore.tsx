/** Now and then a pair that one judged before comes again, its sides swapped: whoever reads says the same. */
import { useCallback, useMemo, useRef, useState } from "react";
import { comparisons, type ShownComparison } from "../api/client";
import { Dialog } from "../app/Dialog";
import { Comparison } from "../rating";
import { Markdown } from "./Markdown";
import { SessionKeep } from "./session_keep";
import { Question } from "./TurnView";

const SHARE = 1 / 20;
const came = new SessionKeep<true>("ratchet.repeated");

export const forgetRepeated = (): void => came.clear();

/** At most one in a session of the tab; where there is none, or none can be had, nothing happens. It waits until the vote's
 * own answers are put away: whoever goes on to write would vote by what they type. */
export function useOneMore() {
  const [pair, setPair] = useState<ShownComparison | null>(null);
  const found = useRef<Promise<ShownComparison | null>>(null);
  const voted = useCallback(() => {
    if (came.get("one") || Math.random() >= SHARE) return;
    found.current = comparisons.repeat().catch(() => null);
  }, []);
  const closed = useCallback(async () => {
    const next = await found.current;
    found.current = null;
    if (next && came.set("one", true)) setPair(next);
  }, []);
  const done = useCallback(() => setPair(null), []);
  return { pair, voted, closed, done };
}

/** No part of the chat, which goes on as it would have. */
export function OneMore({ pair, onClose }: { pair: ShownComparison; onClose: () => void }) {
  const source = useMemo(() => ({ kind: "laid" as const, pair }), [pair]);
  const question = pair.messages.findLast(({ role }) => role === "user")?.content ?? "";
  return (
    <Dialog title="One more pair" onClose={onClose} wide>
      <Question text={question} />
      <Comparison source={source} renderText={(text) => <Markdown text={text} />} onDecided={() => undefined} onClose={onClose} />
    </Dialog>
  );
}
