import type { Session } from "../api/client";
import { forgetAllWords } from "../chat/begun_words";
import { forgetDrafts } from "../chat/drafts";
import { forgetTrials } from "../chat/open_trials";
import { forgetRepeated } from "../chat/OneMore";
import { forgetStreams } from "../chat/pending";
import { forgetSaid } from "../chat/said";

const KEY = "ratchet.person";

/** What is kept of a person, in the browser and in each of its tabs. */
const KEPT = [
  { storage: () => localStorage, forget: forgetDrafts },
  { storage: () => sessionStorage, forget: forgetTab },
];

/** Somebody is in. A session that ended by itself left what was written, for the same person alone. */
export function welcome({ rater }: Session): void {
  for (const { storage, forget } of KEPT) {
    try {
      const before = storage().getItem(KEY);
      if (before !== null && before !== rater) forget();
      storage().setItem(KEY, rater);
    } catch {
      // It is full or forbidden: little stays in it, or nothing.
    }
  }
}

/** Somebody else uses this browser from now on: nothing of what was written or said stays in it. */
export function forgetPerson(): void {
  for (const { storage, forget } of KEPT) {
    forget();
    try {
      storage().removeItem(KEY);
    } catch {
      // It is forbidden: there is nothing in it.
    }
  }
}

function forgetTab(): void {
  forgetSaid();
  forgetStreams();
  forgetTrials();
  forgetAllWords();
  forgetRepeated();
}
