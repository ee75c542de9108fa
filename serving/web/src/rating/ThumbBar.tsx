import { useEffect, useId, useRef, useState } from "react";
import type { KeptFeedback } from "../api/client";
import { MAX_TEXT, type Said } from "../api/feedback";
import { ReasonChips } from "./ReasonChips";
import { BLAME, PRAISE } from "./reasons";
import { Status } from "./Status";
import { useHotkeys } from "./useHotkeys";
import { useStanding } from "./useStanding";

type Vote = 1 | -1;
type Rating = Extract<Said, { type: "rating" }>;

export interface ThumbBarProps {
  completionId: string;
  /** The rating that stands already, as GET /v1/feedback lists it. */
  standing?: KeptFeedback | null;
  /** A comment that was begun before and not sent. */
  begun?: string | null;
  /** The comment that is not sent yet; null when all of it is. */
  onDraft?: (comment: string | null) => void;
  /** The answer is not stored, so it cannot be judged. */
  notKept?: boolean;
  /** + and - vote, for the answer that the page has in hand. */
  hotkeys?: boolean;
  /** Called once the ledger has it; null when it was taken back. */
  onSaved?: (value: Vote | null) => void;
}

interface Given {
  vote: Vote | null;
  reasons: string[];
  comment: string;
}

/** A mark between 0 and 1, which other clients give, is no thumb. */
function givenBy(standing: KeptFeedback | null | undefined): Given {
  const { value, reasons, comment } = (standing?.judgement ?? {}) as Partial<Rating>;
  const vote = value === 1 || value === -1 ? value : null;
  return { vote, reasons: vote ? [...(reasons ?? [])] : [], comment: (vote && comment) || "" };
}

function ratingOf(completionId: string, { vote, reasons, comment }: Given): Rating | null {
  if (vote === null) return null;
  const more = { ...(reasons.length ? { reasons } : {}), ...(comment.trim() ? { comment } : {}) };
  return { type: "rating", completion_id: completionId, value: vote, ...more };
}

export function ThumbBar(props: ThumbBarProps) {
  const { completionId, standing, begun = null, onDraft, notKept = false, hotkeys = false, onSaved } = props;
  const [given, setGiven] = useState(() => givenBy(standing));
  const [draft, setDraft] = useState(begun ?? given.comment);
  const [open, setOpen] = useState(begun !== null);
  const [asked, setAsked] = useState(false);
  const first = ratingOf(completionId, given);
  const kept = useStanding(standing && first ? { id: standing.id, said: first } : null);

  const settled = kept.phase !== "saving" && kept.phase !== "failed";
  const sent = settled ? given.comment : null;
  const unsent = draft.trim() !== (sent ?? "").trim() && (given.vote !== null || kept.phase === "idle");
  useEffect(() => onDraft?.(unsent ? draft : null), [draft, unsent]);

  const keep = async (next: Given) => {
    setGiven(next);
    if (await kept.want(ratingOf(completionId, next))) onSaved?.(next.vote);
  };
  /** A second click takes the vote back, words and all; the other thumb has other reasons, but the comment stays. */
  const vote = (value: Vote) => {
    const again = given.vote === value;
    setOpen(!again);
    setAsked(true);
    void keep({ ...given, vote: again ? null : value, reasons: [] });
  };
  useHotkeys({ "+": () => vote(1), "-": () => vote(-1) }, hotkeys && !notKept);

  return (
    <div className="r-thumbs">
      <div role="group" aria-label="Rate this answer" className="r-row">
        <Thumb value={1} given={given.vote} disabled={notKept} onVote={vote} />
        <Thumb value={-1} given={given.vote} disabled={notKept} onVote={vote} />
        {given.vote !== null && !open && (
          <button type="button" className="r-link" onClick={() => (setOpen(true), setAsked(true))}>
            {given.reasons.length || draft.trim() ? "Your reasons" : "Say why"}
          </button>
        )}
        <Status standing={kept} />
        {notKept && <span className="r-muted">This chat is not kept, so it cannot be rated.</span>}
      </div>
      {given.vote !== null && open && (
        <Why
          given={given}
          draft={draft}
          shows={asked}
          onKeep={keep}
          onDraft={setDraft}
          onClose={() => setOpen(false)}
        />
      )}
    </div>
  );
}

interface ThumbProps {
  value: Vote;
  given: Vote | null;
  disabled: boolean;
  onVote: (value: Vote) => void;
}

function Thumb({ value, given, disabled, onVote }: ThumbProps) {
  const pressed = given === value;
  const [name, key] = value === 1 ? ["Good answer", "+"] : ["Bad answer", "−"];
  return (
    <button
      type="button"
      className={`r-thumb ${value === 1 ? "r-up" : "r-down"}`}
      aria-label={name}
      aria-pressed={pressed}
      title={pressed ? `${name}: press again to take it back` : `${name} (${key})`}
      disabled={disabled}
      onClick={() => onVote(value)}
    >
      <svg viewBox="0 0 24 24" aria-hidden="true">
        <path d="M7 11v9H4v-9zM7 11l4-8c1.5 0 2.5 1 2.5 2.5V9H19a2 2 0 0 1 2 2.3l-1.2 7A2 2 0 0 1 17.8 20H7" />
      </svg>
    </button>
  );
}

interface WhyProps {
  given: Given;
  draft: string;
  /** Somebody wants to see it now. */
  shows: boolean;
  onKeep: (next: Given) => Promise<void>;
  onDraft: (comment: string) => void;
  onClose: () => void;
}

/** Chips are kept as they are ticked; the comment when it is sent. Each is a revision of the vote. */
function Why({ given, draft, shows, onKeep, onDraft, onClose }: WhyProps) {
  const field = useId();
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (shows) place.current?.scrollIntoView({ block: "nearest" }); // newer browsers return a promise, which is no clean-up
  }, []);
  const changed = draft.trim() !== given.comment.trim();
  const send = () => void onKeep({ ...given, comment: draft });
  return (
    <div className="r-why" ref={place}>
      <ReasonChips
        label={given.vote === 1 ? "What was good" : "What was wrong"}
        options={given.vote === 1 ? PRAISE : BLAME}
        chosen={given.reasons}
        onChange={(reasons) => void onKeep({ ...given, reasons })}
      />
      <label htmlFor={field} className="r-hidden">
        Comment, optional
      </label>
      <textarea
        id={field}
        rows={2}
        maxLength={MAX_TEXT}
        placeholder="Comment (optional)"
        value={draft}
        onChange={(event) => onDraft(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
          if (event.key === "Escape" && !changed) onClose();
        }}
      />
      <div className="r-row">
        <button type="button" className="r-button" disabled={!changed} onClick={send}>
          Send comment
        </button>
        <button type="button" className="r-link" onClick={onClose}>
          Close
        </button>
        {changed && <span className="r-muted">Not sent yet</span>}
      </div>
    </div>
  );
}
