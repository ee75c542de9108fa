import { useDeferredValue, useEffect, useId, useRef, useState, type KeyboardEvent } from "react";
import type { Accepted } from "../api/client";
import { MAX_TEXT } from "../api/feedback";
import { Changes } from "./Changes";
import { Discard } from "./Discard";
import { Status } from "./Status";
import { useStanding } from "./useStanding";

export interface EditAnswerProps {
  completionId: string;
  /** The answer as it was shown. */
  text: string;
  /** The chat may be learned from. */
  learns: boolean;
  /** A correction that was saved before. */
  saved?: { id: string; content: string } | null;
  /** What was begun before and not saved. */
  begun?: string | null;
  /** What is not saved yet; null when all is, or is discarded. */
  onDraft?: (draft: string | null) => void;
  /** Called once the ledger has the correction; null when it was taken back. */
  onSaved?: (content: string | null) => void;
  onClose: () => void;
}

/** An answer edited into what it should have been: a demonstration, which fine-tuning learns. */
export function EditAnswer(props: EditAnswerProps) {
  const { completionId, text, learns, saved = null, begun = null, onDraft, onSaved, onClose } = props;
  const said = (content: string) =>
    ({ type: "demonstration", completion_id: completionId, content, based_on_edit: true }) as const;
  const kept = useStanding(saved && { id: saved.id, said: said(saved.content) });
  const [draft, setDraft] = useState(begun ?? saved?.content ?? text);
  const [standing, setStanding] = useState(saved?.content ?? null);
  const [asking, setAsking] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const ids = { field: useId(), help: useId() };
  useEffect(() => field.current?.focus(), []);

  const unsaved = draft !== (standing ?? text);
  useEffect(() => onDraft?.(unsaved ? draft : null), [draft, unsaved]);
  const hindrance = hindranceOf(draft, text, unsaved);
  const save = async () => {
    if (hindrance || kept.phase === "saving") return;
    if (await kept.want(said(draft))) {
      setStanding(draft);
      onSaved?.(draft);
    }
  };
  const takeBack = async () => {
    if (await kept.want(null)) {
      setStanding(null);
      onSaved?.(null);
    }
  };
  const leave = () => (unsaved ? setAsking(true) : onClose());
  const discard = () => {
    onDraft?.(null);
    onClose();
  };
  const stay = () => {
    setAsking(false);
    field.current?.focus();
  };
  const pressed = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void save();
    else if (event.key === "Escape") (asking ? stay : leave)();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  return (
    <section className="r-edit" aria-label="Correct this answer" onKeyDown={pressed}>
      <label htmlFor={ids.field}>What the answer should have been</label>
      <textarea
        ref={field}
        id={ids.field}
        aria-describedby={ids.help}
        rows={Math.min(20, Math.max(4, draft.split("\n").length + 1))}
        value={draft}
        onChange={(event) => setDraft(event.target.value)}
      />
      <ChangesSoFar before={text} after={draft} />
      {asking && <Discard onDiscard={discard} onStay={stay} />}
      <div className="r-votes">
        <button
          type="button"
          className="r-button r-primary"
          aria-keyshortcuts="Control+Enter"
          disabled={hindrance !== null || kept.phase === "saving"}
          onClick={() => void save()}
        >
          Save correction
        </button>
        {standing !== null && (
          <button type="button" className="r-button" onClick={() => void takeBack()}>
            Take it back
          </button>
        )}
        <button type="button" className="r-link" onClick={leave}>
          Close
        </button>
        <Status standing={kept} saved={savedWords(learns, kept.accepted)} />
      </div>
      <p id={ids.help} className="r-muted">
        {hindrance ?? "Ctrl+Enter saves, Esc leaves."}
      </p>
    </section>
  );
}

/** Raters of the split `eval` decide, and teach nothing. */
function savedWords(learns: boolean, accepted: Accepted | null): string {
  if (!learns) return "Saved. Nothing is learned from this chat.";
  return accepted?.split === "train" ? "Saved: later policies learn from it" : "Saved";
}

/** Why the draft cannot be saved. Length is counted as the server does: by characters, not by halves of them. */
function hindranceOf(draft: string, text: string, unsaved: boolean): string | null {
  const length = draft.length > MAX_TEXT ? [...draft].length : draft.length;
  if (length > MAX_TEXT) return `${length - MAX_TEXT} characters too long: at most ${MAX_TEXT} are taken.`;
  if (!draft.trim()) return "An empty answer is no correction.";
  if (draft === text) return "Nothing is changed yet.";
  return unsaved ? null : "This is what is saved.";
}

/** Kept up with the typing as far as there is time. */
function ChangesSoFar({ before, after }: { before: string; after: string }) {
  const shown = useDeferredValue(after);
  return before === shown ? null : <Changes before={before} after={shown} />;
}
