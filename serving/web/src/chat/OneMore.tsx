/** Now and then a pair that one judged before comes again, its sides swapped: whoever reads says the same. */
import { useCallback, useMemo, useState } from "react";
import { comparisons, type ShownComparison } from "../api/client";
import { Dialog } from "../app/Dialog";
import { Comparison } from "../rating";
import { Markdown } from "./Markdown";
import { SessionKeep } from "./session_keep";
import { Question } from "./TurnView";

const SHARE = 1 / 20;
const came = new SessionKeep<true>("ratchet.repeated");

export const forgetRepeated = (): void => came.clear();

/** At most one in a session of the tab; where there is none, or none can be had, nothing happens. */
export function useOneMore() {
  const [pair, setPair] = useState<ShownComparison | null>(null);
  const voted = useCallback(async () => {
    if (came.get("one") || Math.random() >= SHARE) return;
    const found = await comparisons.repeat().catch(() => null);
    if (found && came.set("one", true)) setPair(found);
  }, []);
  const done = useCallback(() => setPair(null), []);
  return { pair, voted, done };
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
