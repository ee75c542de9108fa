import { useEffect, useLayoutEffect, useRef, useState, type KeyboardEvent } from "react";
import { SendIcon, StopIcon } from "../app/icons";
import { enterHint, hasKeys, sends } from "../app/keyboard";
import { draftOf, keepDraft, NEW } from "./drafts";
import type { ChatState } from "./chat_state";
import { HowMany } from "./HowMany";
import { keepWanted, wantedBefore } from "./mode";
import type { ChatStore } from "./store";

interface ComposerProps {
  store: ChatStore;
  chat: ChatState;
  onEditLast: () => void;
  onSent: () => void;
  /** Answers are being judged: the next question waits for the one to go on from. */
  trying: boolean;
  onTry: (text: string, count: number) => void;
}

export function Composer({ store, chat, onEditLast, onSent, trying, onTry }: ComposerProps) {
  const place = chat.status === "new" ? NEW : chat.id;
  const [text, setText] = useState(() => draftOf(place));
  const [wanted, setWanted] = useState(wantedBefore);
  const field = useRef<HTMLTextAreaElement>(null);
  const first = useRef(trying);
  const change = (value: string) => {
    setText(value);
    // A temporary chat leaves nothing behind, drafts included.
    if (!chat.temporary) keepDraft(place, value);
  };

  useLayoutEffect(() => grow(field.current!), [text]);
  useEffect(() => {
    // Where answers wait for a judgement, keys are votes.
    if (!first.current && hasKeys()) field.current?.focus();
  }, []);
  // What was not taken comes back, unless something else has been written by now.
  const returned = chat.failure?.draft ?? null;
  useEffect(() => {
    if (returned !== null) setText((now) => now || returned);
  }, [returned]);
  const taken = chat.writing?.draft ?? null;
  useEffect(() => {
    if (taken !== null) setText((now) => (now.trim() === taken ? "" : now));
  }, [taken]);

  const waits = trying || chat.status === "loading" || chat.status === "missing";
  const send = () => {
    const said = text.trim();
    if (!said || chat.writing || waits) return;
    setText(""); // the draft is kept until the server has begun to answer
    onSent();
    // What is kept nowhere cannot be judged: a temporary chat gives one answer, and the choice stands for the next chat.
    if (wanted.mode === "one" || chat.temporary) void store.ask(said);
    else onTry(said, wanted.mode === "two" ? 2 : wanted.ranked);
  };
  const pressed = (event: KeyboardEvent<HTMLElement>) => {
    if (event.nativeEvent.isComposing) return;
    if (sends(event)) {
      event.preventDefault();
      send();
    }
    // Out of the field, single keys are votes.
    if (event.key === "Escape" && !chat.writing) event.currentTarget.blur();
    if (event.key === "ArrowUp" && text === "" && !chat.writing) {
      event.preventDefault();
      onEditLast();
    }
  };

  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <div className="field">
        <textarea
          id="composer"
          ref={field}
          rows={1}
          value={text}
          aria-label="Message"
          enterKeyHint={enterHint()}
          placeholder={chat.temporary ? "Ask something that is not kept" : "Ask something"}
          onChange={(event) => change(event.target.value)}
          onKeyDown={pressed}
        />
        {chat.writing ? (
          <button type="button" className="send" aria-label="Stop (Esc)" title="Stop (Esc)" onClick={() => store.stop()}>
            <StopIcon />
          </button>
        ) : (
          <button type="submit" className="send" aria-label="Send" title="Send (Enter)" disabled={!text.trim() || waits}>
            <SendIcon />
          </button>
        )}
      </div>
      {!chat.temporary && <HowMany wanted={wanted} onWant={(now) => (keepWanted(now), setWanted(now))} />}
    </form>
  );
}

function grow(field: HTMLTextAreaElement): void {
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, window.innerHeight * 0.4)}px`;
}
