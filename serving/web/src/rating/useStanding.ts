import { useCallback, useRef, useState } from "react";
import { ApiError, explain, type Accepted } from "../api/client";
import { give, newClientId, takeBack, uncertain, type Said } from "../api/feedback";

/** "saved" and "removed" are said only after the ledger has it; "failed" keeps what was wanted for another try. */
export type Phase = "idle" | "saving" | "saved" | "removed" | "failed";

export interface Standing {
  phase: Phase;
  /** Why it failed, in words for a person. */
  problem: string | null;
  /** What the server answered to the judgement that stands. */
  accepted: Accepted | null;
  /** Wants this judgement to stand, or none. Resolves when the server has it, with whether it does. */
  want: (said: Said | null) => Promise<boolean>;
  /** Tries again what failed. */
  again: () => Promise<boolean>;
}

interface Kept {
  id: string;
  body: string;
}

const CHANGED = "It was changed or deleted elsewhere meanwhile: load the page again to see what stands.";

/**
 * One judgement, kept as wanted: what is wanted while a request runs follows it, the latest only.
 *
 * A request that may have arrived although it failed is repeated under the same client id before anything else is
 * done, so that no vote stands that its person believes gone.
 */
export function useStanding(initial: { id: string; said: Said } | null = null): Standing {
  const wanted = useRef<Said | null>(initial?.said ?? null);
  const kept = useRef<Kept | null>(initial && { id: initial.id, body: JSON.stringify(initial.said) });
  const sending = useRef<{ said: Said; body: string; clientId: string } | null>(null);
  const running = useRef<Promise<boolean> | null>(null);
  const [phase, setPhase] = useState<Phase>("idle");
  const [problem, setProblem] = useState<string | null>(null);
  const [accepted, setAccepted] = useState<Accepted | null>(null);

  const send = useCallback(async (said: Said) => {
    const body = JSON.stringify(said);
    if (sending.current?.body !== body) sending.current = { said, body, clientId: newClientId() };
    try {
      const answer = await give(said, sending.current.clientId);
      sending.current = null;
      if (answer.status !== "accepted") throw new Error(CHANGED);
      kept.current = { id: answer.id, body };
      setAccepted(answer);
    } catch (error) {
      if (!uncertain(error)) sending.current = null;
      throw error;
    }
  }, []);

  const remove = useCallback(async (id: string) => {
    await takeBack(id);
    kept.current = null;
    setAccepted(null);
  }, []);

  const settle = useCallback(async () => {
    setPhase("saving");
    setProblem(null);
    try {
      for (;;) {
        const next = wanted.current;
        const doubtful = sending.current;
        if (doubtful && doubtful.body !== (next && JSON.stringify(next))) await send(doubtful.said);
        else if (next === null && kept.current) await remove(kept.current.id);
        else if (next !== null && kept.current?.body !== JSON.stringify(next)) await send(next);
        else break;
      }
      setPhase(wanted.current === null ? "removed" : "saved");
      return true;
    } catch (error) {
      setProblem(error instanceof ApiError && error.code === "conflict" ? CHANGED : explain(error));
      setPhase("failed");
      return false;
    }
  }, [send, remove]);

  const again = useCallback(() => {
    running.current ??= settle().finally(() => {
      running.current = null;
    });
    return running.current;
  }, [settle]);

  const want = useCallback(
    (said: Said | null) => {
      wanted.current = said;
      return again();
    },
    [again],
  );

  return { phase, problem, accepted, want, again };
}
