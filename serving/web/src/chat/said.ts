/** What one has said of answers so far: asked once for each answer, and again when one has judged it since. */
import { useEffect, useState } from "react";
import type { KeptFeedback } from "../api/client";
import { saidOf } from "../api/feedback";

const known = new Map<string, Promise<KeptFeedback[]>>();

function about(id: string): Promise<KeptFeedback[]> {
  const asked = known.get(id) ?? saidOf(id);
  known.set(id, asked);
  asked.catch(() => known.get(id) === asked && known.delete(id));
  return asked;
}

/** Somebody judged this answer just now. */
export const judged = (id: string): void => void known.delete(id);

/** Somebody else uses the page from now on. */
export const forgetSaid = (): void => known.clear();

/** Undefined until it is known; if it cannot be known, nothing was said. Looks anew where `changes` did. */
export function useSaid(id: string, wanted: boolean, changes = 0): KeptFeedback[] | undefined {
  const [found, setFound] = useState<KeptFeedback[]>();
  useEffect(() => {
    if (!wanted) return;
    let current = true;
    about(id).then(
      (kept) => current && setFound(kept),
      () => current && setFound([]),
    );
    return () => {
      current = false;
    };
  }, [id, wanted, changes]);
  return found;
}
