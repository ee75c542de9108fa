import { forgetAllWords } from "../chat/begun_words";
import { forgetDrafts } from "../chat/drafts";
import { forgetTrials } from "../chat/open_trials";
import { forgetRepeated } from "../chat/OneMore";
import { forgetStreams } from "../chat/pending";
import { forgetSaid } from "../chat/said";

/** Somebody else uses this browser from now on: nothing of what was written or said stays in it. */
export function forgetPerson(): void {
  forgetSaid();
  forgetDrafts();
  forgetStreams();
  forgetTrials();
  forgetAllWords();
  forgetRepeated();
}
