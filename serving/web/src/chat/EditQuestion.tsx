import { useEffect, useRef, useState, type KeyboardEvent } from "react";
import { enterHint, sends } from "../app/keyboard";
import { Discard } from "../rating";
import { begunWords, keepWords } from "./begun_words";
import type { ChatStore } from "./store";
import { asked } from "./tree";

interface EditQuestionProps {
  store: ChatStore;
  /** The answer whose question it is. */
  of: string;
  /** The words that were not taken. */
  refused?: string;
  /** It cannot be asked now. */
  busy: boolean;
  onSend: (of: string, text: string) => void;
  onClose: () => void;
}

/** A question in other words. What is begun is kept until there is an answer to it, or it is discarded. */
export function EditQuestion({ store, of, refused, busy, onSend, onClose }: EditQuestionProps) {
  const { id, nodes, temporary } = store.state;
  const text = asked(nodes.get(of)!);
  const [draft, setDraft] = useState(() => refused ?? begunWords(id, of).question ?? text);
  const [asking, setAsking] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const unsent = draft !== text;
  const keep = (words: string | null) => {
    if (!temporary) keepWords(id, of, "question", words);
  };
  useEffect(() => keep(unsent ? draft : null), [draft, unsent]);
  useEffect(() => {
    const before = document.activeElement;
    field.current?.focus();
    field.current?.setSelectionRange(draft.length, draft.length);
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);

  const sendable = !busy && draft.trim() !== "";
  const send = () => sendable && onSend(of, draft.trim());
  const leave = () => (unsent ? setAsking(true) : onClose());
  const discard = () => {
    keep(null);
    onClose();
  };
  const stay = () => {
    setAsking(false);
    field.current?.focus();
  };
  const pressed = (event: KeyboardEvent) => {
    if (event.nativeEvent.isComposing) return;
    if (sends(event) && event.target === field.current) send();
    else if (event.key === "Escape") (asking ? stay : leave)();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <form className="edit-question" onSubmit={(event) => (event.preventDefault(), send())} onKeyDown={pressed}>
      <textarea
        ref={field}
        aria-label="Your question in other words"
        enterKeyHint={enterHint()}
        rows={Math.min(10, draft.split("\n").length + 1)}
        value={draft}
        onChange={(event) => setDraft(event.target.value)}
      />
      {asking && <Discard onDiscard={discard} onStay={stay} />}
      <div>
        <button type="button" onClick={leave}>
          Cancel
        </button>
        <button type="submit" className="primary" disabled={!sendable}>
          Send
        </button>
      </div>
    </form>
  );
}
