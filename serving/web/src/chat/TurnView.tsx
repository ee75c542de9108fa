import { memo, useEffect, useRef } from "react";
import { LeftIcon, PenIcon, RightIcon } from "../app/icons";
import { AnswerActions } from "./AnswerActions";
import { CopyButton } from "./CopyButton";
import { EditQuestion } from "./EditQuestion";
import { Markdown } from "./Markdown";
import type { Writing } from "./chat_state";
import type { ChatStore } from "./store";
import { asked, type Place, type Turn } from "./tree";
import type { Trial } from "./Trial";
import { besideOf, rankingOf } from "./trials";

interface TurnViewProps {
  turn: Turn;
  /** The answer, while it is being written. */
  writing: Writing | null;
  store: ChatStore;
  busy: boolean;
  kept: boolean;
  /** The chat may be learned from. */
  learns: boolean;
  last: boolean;
  /** The answer whose question is being edited: this one, or another one to the same question. */
  editing: string | null;
  onEdit: (id: string | null) => void;
  onAskAnew: (id: string, text: string) => void;
  correcting: boolean;
  onCorrect: (id: string | null) => void;
  onTrial: (trial: Trial) => void;
}

export const TurnView = memo(function TurnView(props: TurnViewProps) {
  const { turn, writing, store, busy, kept, learns, last, editing, onEdit, onAskAnew, correcting, onCorrect, onTrial } =
    props;
  const { node, answers, prompts } = turn;
  const id = node.completion_id;
  const pen = useRef<HTMLButtonElement>(null);
  const wasEditing = useRef(false);
  // Once more there: the editor took its place. Whoever began elsewhere is there again by now.
  useEffect(() => {
    if (wasEditing.current && editing === null && document.activeElement === document.body) pen.current?.focus();
    wasEditing.current = editing !== null;
  }, [editing]);
  return (
    <>
      {editing !== null ? (
        <EditQuestion store={store} of={editing} busy={busy} onSend={onAskAnew} onClose={() => onEdit(null)} />
      ) : (
        <Question text={asked(node)} bare={writing !== null}>
          <Switcher place={prompts} what="wording" disabled={busy} onShow={(other) => store.show(other)} />
          <button
            ref={pen}
            type="button"
            className="icon"
            aria-label="Edit and send again"
            title="Edit and send again"
            disabled={busy}
            onClick={() => onEdit(id)}
          >
            <PenIcon />
          </button>
          <CopyButton text={asked(node)} label="Copy question" />
        </Question>
      )}
      <article className="answer" aria-label="Answer" aria-busy={writing !== null}>
        <Markdown text={node.content} />
        {writing?.text === "" && <p className="thinking" aria-hidden="true" />}
        {writing?.reconnecting && <p className="muted small">The connection broke off. Trying to go on…</p>}
        {node.partial && <p className="muted small">Stopped here.</p>}
        {node.finish_reason === "length" && <p className="muted small">The answer was cut off at its greatest length.</p>}
        {!writing && <AnswerActions
          chat={store.state.id}
          turn={turn}
          busy={busy}
          kept={kept}
          learns={learns}
          last={last}
          correcting={correcting}
          onCorrect={(now) => onCorrect(now ? id : null)}
          acts={{
            again: () => void store.regenerate(id),
            beside: () => onTrial(besideOf(store, turn)),
            rankAll: () => onTrial(rankingOf(store, turn)),
          }}
          switcher={
            <Switcher place={answers} what="answer" disabled={busy} onShow={(other) => store.show(other)} />
          }
        />}
      </article>
    </>
  );
});

interface QuestionProps {
  text: string;
  bare?: boolean;
  children?: React.ReactNode;
}

export function Question({ text, bare = false, children }: QuestionProps) {
  return (
    <section className="question" aria-label="You">
      <p>{text}</p>
      {children && !bare && <div className="actions">{children}</div>}
    </section>
  );
}

interface SwitcherProps {
  place: Place;
  what: string;
  disabled: boolean;
  onShow: (id: string) => void;
}

/** n/m among alternatives, where there are any. */
function Switcher({ place, what, disabled, onShow }: SwitcherProps) {
  const { ids, at } = place;
  if (ids.length < 2) return null;
  const step = (by: number, label: string, icon: React.ReactNode) => (
    <button
      type="button"
      className="icon"
      aria-label={label}
      disabled={disabled || ids[at + by] === undefined}
      onClick={() => onShow(ids[at + by]!)}
    >
      {icon}
    </button>
  );
  return (
    <span className="switcher" role="group" aria-label={`Other ${what}s`}>
      {step(-1, `Previous ${what}`, <LeftIcon />)}
      <span aria-label={`${what} ${at + 1} of ${ids.length}`} role="img">
        {at + 1}/{ids.length}
      </span>
      {step(1, `Next ${what}`, <RightIcon />)}
    </span>
  );
}
