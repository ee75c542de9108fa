import { useEffect, useLayoutEffect, useRef, useState, type KeyboardEvent } from "react";
import { SendIcon, StopIcon } from "../app/icons";
import { draftOf, keepDraft, NEW } from "./drafts";
import type { ChatState, ChatStore } from "./store";

interface ComposerProps {
  store: ChatStore;
  chat: ChatState;
  onEditLast: () => void;
  onSent: () => void;
}

export function Composer({ store, chat, onEditLast, onSent }: ComposerProps) {
  const place = chat.status === "new" ? NEW : chat.id;
  const [text, setText] = useState(() => draftOf(place));
  const field = useRef<HTMLTextAreaElement>(null);
  const change = (value: string) => {
    setText(value);
    // A temporary chat leaves nothing behind, drafts included.
    if (!chat.temporary) keepDraft(place, value);
  };

  useLayoutEffect(() => grow(field.current!), [text]);
  useEffect(() => {
    if (matchMedia("(hover: hover)").matches) field.current?.focus();
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

  const send = () => {
    const said = text.trim();
    if (!said || chat.writing || chat.status === "loading") return;
    setText(""); // the draft is kept until the server has begun to answer
    onSent();
    void store.ask(said);
  };
  const pressed = (event: KeyboardEvent) => {
    if (event.nativeEvent.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      send();
    }
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
          placeholder={chat.temporary ? "Ask something that is not kept" : "Ask something"}
          onChange={(event) => change(event.target.value)}
          onKeyDown={pressed}
        />
        {chat.writing ? (
          <button type="button" className="send" aria-label="Stop (Esc)" title="Stop (Esc)" onClick={() => store.stop()}>
            <StopIcon />
          </button>
        ) : (
          <button type="submit" className="send" aria-label="Send" title="Send (Enter)" disabled={!text.trim()}>
            <SendIcon />
          </button>
        )}
      </div>
    </form>
  );
}

function grow(field: HTMLTextAreaElement): void {
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, window.innerHeight * 0.4)}px`;
}
