import { useEffect, useMemo, useState, useSyncExternalStore, type ReactNode } from "react";
import { ApiError } from "../api/client";
import { DownIcon } from "../app/icons";
import { isTyping, useKeys } from "../app/useKeys";
import { Banner } from "./Banner";
import { Composer } from "./Composer";
import { PrivacyBar } from "./PrivacyBar";
import type { ChatStore } from "./store";
import { turnsTo } from "./tree";
import { Question, TurnView } from "./TurnView";
import { Markdown } from "./Markdown";
import { useFollowing } from "./useFollowing";

interface ChatPaneProps {
  store: ChatStore;
  title: string;
  menu: ReactNode;
  onSignedOut: () => void;
}

export function ChatPane({ store, title, menu, onSignedOut }: ChatPaneProps) {
  const chat = useSyncExternalStore(store.subscribe, store.snapshot);
  const { writing, failure, nodes } = chat;
  const asked = writing ?? failure?.retry ?? null;
  const end = asked ? asked.parent : chat.head;
  const turns = useMemo(() => turnsTo(nodes, end), [nodes, end]);
  const following = useFollowing(writing?.text ?? end);
  const [editing, setEditing] = useState<string | null>(null);
  const last = turns.at(-1)?.node.completion_id ?? null;

  useKeys({
    escape: () => writing && (void store.stop(), true),
    r: (event) => !isTyping(event) && last && !writing && (void store.regenerate(last), true),
  });
  useEffect(() => {
    if (failure?.error instanceof ApiError && failure.error.status === 401) onSignedOut();
  }, [failure, onSignedOut]);

  return (
    <main className="chat">
      <header className="bar">
        {menu}
        <h1>{title || (chat.temporary ? "Temporary chat" : "New conversation")}</h1>
        <PrivacyBar chat={chat} store={store} />
      </header>
      <div className="scroll" ref={following.ref} onScroll={following.onScroll} tabIndex={-1}>
        <div className="turns">
          {chat.status === "missing" && <p className="muted nothing">There is no such conversation, or it was deleted.</p>}
          {chat.status === "new" && !asked && <Welcome />}
          {turns.map((turn) => (
            <TurnView
              key={turn.node.completion_id}
              turn={turn}
              store={store}
              busy={writing !== null}
              kept={!chat.temporary}
              last={turn.node.completion_id === last && !asked}
              editing={editing === turn.node.completion_id}
              onEdit={setEditing}
            />
          ))}
          {asked && <Question text={words(asked.messages)} />}
          {writing && (
            <article className="answer" aria-label="Answer" aria-busy="true">
              {writing.text ? <Markdown text={writing.text} /> : <p className="thinking" aria-hidden="true" />}
              {writing.reconnecting && <p className="muted small">The connection broke off. Trying to go on…</p>}
            </article>
          )}
          {failure && <Banner failure={failure} store={store} />}
        </div>
      </div>
      {!following.atEnd && (
        <button type="button" className="to-end icon" aria-label="To the end" onClick={following.toEnd}>
          <DownIcon />
        </button>
      )}
      <Composer
        store={store}
        chat={chat}
        onEditLast={() => setEditing(last)}
        onSent={following.toEnd}
      />
      <Announcer writing={writing !== null} text={turns.at(-1)?.node.content ?? ""} failed={failure !== null} />
    </main>
  );
}

const words = (messages: { role: string; content: string | null }[]) =>
  messages.filter((message) => message.role === "user").map((message) => message.content ?? "").join("\n\n");

function Welcome() {
  return (
    <section className="welcome">
      <h2>What would you like to know?</h2>
      <p className="muted">
        Say what you think of the answers: the next policy learns from it. <kbd>?</kbd> shows the keyboard shortcuts.
      </p>
    </section>
  );
}

/** Tells a screen reader that an answer began and ended, not every word on the way. */
function Announcer({ writing, text, failed }: { writing: boolean; text: string; failed: boolean }) {
  const [said, setSaid] = useState("");
  const [before, setBefore] = useState(writing);
  if (before !== writing) {
    setBefore(writing);
    const count = text.split(/\s+/).filter(Boolean).length;
    setSaid(writing ? "The answer is being written." : failed ? "" : `The answer is finished: ${count} words.`);
  }
  return (
    <p className="quiet" role="status" aria-live="polite">
      {said}
    </p>
  );
}
