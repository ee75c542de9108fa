/** What one has said of answers so far: read once in all, and anew for an answer that one has judged since. */
import { useEffect, useState } from "react";
import type { KeptFeedback } from "../api/client";
import { said, saidOf } from "../api/feedback";

let all: Promise<Map<string, KeptFeedback[]>> | null = null;
const stale = new Set<string>();

async function everything(): Promise<Map<string, KeptFeedback[]>> {
  const about = new Map<string, KeptFeedback[]>();
  for await (const page of said()) {
    for (const kept of page) {
      const id = kept.judgement["completion_id"];
      if (typeof id === "string") about.set(id, [...(about.get(id) ?? []), kept]);
    }
  }
  return about;
}

async function about(id: string): Promise<KeptFeedback[]> {
  if (stale.has(id)) return saidOf(id);
  all ??= everything().catch((error: unknown) => {
    all = null;
    throw error;
  });
  return (await all).get(id) ?? [];
}

/** Somebody judged this answer just now. */
export const judged = (id: string): void => void stale.add(id);

/** Somebody else uses the page from now on. */
export function forgetSaid(): void {
  all = null;
  stale.clear();
}

/** Undefined until it is known; if it cannot be known, nothing was said. */
export function useSaid(id: string, wanted: boolean): KeptFeedback[] | undefined {
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
  }, [id, wanted]);
  return found;
}
