import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore, type ReactNode } from "react";
import { ApiError, type TreeNode } from "../api/client";
import { DownIcon } from "../app/icons";
import { isTyping, useKeys } from "../app/useKeys";
import { useReturn } from "../app/useReturn";
import type { Memory } from "../rating";
import { Banner } from "./Banner";
import { editedIn } from "./begun_words";
import { Composer } from "./Composer";
import { EditQuestion } from "./EditQuestion";
import { Markdown } from "./Markdown";
import { OneMore, useOneMore } from "./OneMore";
import { PrivacyBar } from "./PrivacyBar";
import type { Writing } from "./chat_state";
import { forgetSaid } from "./said";
import type { ChatStore } from "./store";
import { forgetDraft } from "./drafts";
import { begunRanking, forgetTrial, keepRanking, leaveTrial, openTrial, rememberTrial } from "./open_trials";
import { turnsTo, words, type Turn } from "./tree";
import { TrialView, type Trial } from "./Trial";
import { besideOf, trialOf } from "./trials";
import { Question, TurnView } from "./TurnView";
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
  const [trial, setTrial] = useState<Trial | null>(() => openTrial(chat.id));
  /** Which one it is in this chat: the next is drawn anew, even where it takes the place of one that was decided. */
  const nth = useRef(0);
  const [decided, setDecided] = useState(false);
  const more = useOneMore();
  /** What the chat goes on from, once it is chosen. */
  const chosen = useRef<{ winner: string | null } | null>(null);
  /** What was chosen and could not be loaded. */
  const [stuck, setStuck] = useState<{ winner: string | null } | null>(null);
  const begin = useCallback((next: Trial | null) => {
    setDecided(false);
    setStuck(null);
    setTrial(next);
    nth.current += 1;
    chosen.current = null;
    forgetSaid(); // the answers of a trial may have been judged in it
    if (next?.way.kind === "rank-known") rememberTrial(store.state.id, next, null);
  }, [store]);
  const memory = useMemo(() => trial && memoryOf(store, trial), [store, trial]);
  const asked = trial ?? writing ?? failure?.retry ?? null;
  const end = asked ? asked.parent : chat.head;
  const turns = useMemo(() => turnsTo(nodes, end), [nodes, end]);
  const pending = writing && beingWritten(writing);
  const shown = pending ? [...turns, pending] : turns;
  const following = useFollowing(writing?.text ?? failure ?? trial ?? end);
  const [editing, setEditing] = useState(() => editedIn(chat.id, "question"));
  const [correcting, setCorrecting] = useState(() => editedIn(chat.id, "correction"));
  // The editor stays until its words are taken.
  const askAnew = useCallback(async (id: string, text: string) => {
    if (await store.edit(id, text)) setEditing(null);
  }, [store]);
  const edited = asked === failure?.retry ? (asked?.edited ?? null) : null;
  const last = turns.at(-1)?.node.completion_id ?? null;

  useKeys({
    escape: () => writing && (void store.stop(), true),
    r: (event) => free(event) && (void store.regenerate(last!), true),
    s: (event) => free(event) && !chat.temporary && (begin(besideOf(store, turns.at(-1)!)), true),
    e: (event) => free(event) && !chat.temporary && (setCorrecting(last), true),
  });
  const inEditor = turns.some(({ node }) => node.completion_id === correcting); // else of another branch, or deleted
  const editsQuestion = edited !== null || turns.some(({ answers }) => editing !== null && answers.ids.includes(editing));
  // Opened or come back to, it is as it was left here; what somebody is at stays as they see it.
  const catchUp = () => {
    if (!trial && !inEditor && !editsQuestion) void store.catchUp();
  };
  useEffect(catchUp, []);
  useReturn(catchUp);
  const free = ({ target, key }: KeyboardEvent) => !isTyping(target, key) && last !== null && !writing && !trial && !inEditor;
  const decide = (winner: string | null) => {
    const question = words(trial!.messages);
    forgetDraft(store.state.id, question);
    forgetTrial(store.state.id);
    setDecided(false);
    chosen.current = { winner };
    more.voted();
    void goOn(winner);
  };
  // The next question waits for it: it would follow another answer.
  const goOn = async (winner: string | null) => {
    setStuck(null);
    if (await store.goOnFrom(winner)) setDecided(true);
    else setStuck({ winner });
  };
  const close = async () => {
    const { messages, asked: fresh } = trial!;
    const end = chosen.current ? chosen.current.winner : hadBefore(trial!);
    await leaveTrial(store.state.id);
    await store.goOnFrom(end);
    begin(null);
    void more.closed();
    if (fresh === null) return;
    const said = words(messages);
    const isAnswer = (node: TreeNode) => !fresh.known.has(node.completion_id) && words(node.new_messages) === said;
    if ([...store.state.nodes.values()].some(isAnswer)) forgetDraft(store.state.id, said);
    else store.giveBack(said);
  };
  useEffect(() => {
    if (failure?.error instanceof ApiError && failure.error.status === 401) onSignedOut();
  }, [failure, onSignedOut]);

  return (
    <main className="chat">
      <header className="bar">
        {menu}
        <h1>{title || (chat.temporary ? "Temporary chat" : "New conversation")}</h1>
        <PrivacyBar chat={chat} store={store} begun={asked !== null} />
      </header>
      <div className="scroll" ref={following.ref} onScroll={following.onScroll} tabIndex={-1}>
        <div className={trial ? "turns wide" : "turns"}>
          {chat.status === "missing" && !trial && <p className="muted nothing">There is no such conversation, or it was deleted.</p>}
          {chat.status === "new" && !asked && <Welcome learns={!chat.temporary && chat.allowTraining} />}
          {shown.map((turn) => (
            <TurnView
              key={turn.node.completion_id}
              turn={turn}
              writing={turn === pending ? writing : null}
              store={store}
              busy={writing !== null || trial !== null}
              kept={!chat.temporary}
              learns={chat.allowTraining}
              last={turn.node.completion_id === last && !asked}
              editing={editing !== null && turn.answers.ids.includes(editing) ? editing : null}
              onEdit={setEditing}
              onAskAnew={askAnew}
              correcting={correcting === turn.node.completion_id}
              onCorrect={setCorrecting}
              onTrial={begin}
            />
          ))}
          {asked && !writing && (edited !== null && nodes.has(edited) ? (
            <EditQuestion
              store={store}
              of={edited}
              refused={words(asked.messages)}
              busy={false}
              onSend={askAnew}
              onClose={() => (setEditing(null), store.dismiss())}
            />
          ) : (
            <Question text={words(asked.messages)} />
          ))}
          {failure?.shown && !writing && !trial && <BrokenOff text={failure.shown} />}
          {trial && (
            <TrialView key={nth.current} trial={trial} memory={memory!} onDecided={decide} onClose={() => void close()} />
          )}
          {trial && stuck && (
            <p className="muted small" role="alert">
              The chat could not go on from what you chose.{" "}
              <button type="button" className="link" onClick={() => void goOn(stuck.winner)}>
                Try again
              </button>
            </p>
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
        onSent={() => {
          begin(null); // what was decided stays decided
          following.toEnd();
        }}
        trying={trial !== null && !decided}
        onTry={(text, count) => begin(trialOf(store, text, count))}
      />
      {more.pair && <OneMore pair={more.pair} onClose={more.done} />}
      <Announcer writing={writing !== null} text={turns.at(-1)?.node.content ?? ""} failed={failure !== null} />
    </main>
  );
}

/** Kept nowhere, so there is nothing to do with it but to read it. */
function BrokenOff({ text }: { text: string }) {
  return (
    <article className="answer" aria-label="An answer that broke off">
      <Markdown text={text} />
      <p className="muted small">It broke off here and is not kept.</p>
    </article>
  );
}

/** Named as it will be when it is finished, so that it is not drawn anew then. */
function beingWritten({ responseId, parent, messages, text }: Writing): Turn {
  const id = responseId === null ? "nameless" : `${responseId}:0`;
  const node: TreeNode = {
    completion_id: id, response_id: responseId ?? "", choice: 0, parent_id: parent, new_messages: messages,
    content: text, policy_version: null, created: 0, finish_reason: "", partial: false, siblings: [],
  };
  return { node, answers: { ids: [id], at: 0 }, prompts: { ids: [id], at: 0 } };
}

/** Once they have a name, a refresh finds the answers again: the draft is no longer needed, and the chat has begun. */
function memoryOf(store: ChatStore, trial: Trial): Memory {
  const { id } = store.state;
  return {
    keep: (responseId) => {
      const kept = rememberTrial(id, trial, responseId);
      if (kept && trial.asked) forgetDraft(id, words(trial.messages));
      store.begun();
    },
    keeps: () => openTrial(id) !== null,
    ranking: () => begunRanking(id),
    keepRanking: (ranking) => keepRanking(id, ranking),
  };
}

/** Whoever wants no other answer after all keeps the one that was there. */
const hadBefore = ({ way }: Trial): string | null =>
  way.kind === "compare" && way.source.kind === "another" ? way.source.existing.completionId : null;

function Welcome({ learns }: { learns: boolean }) {
  return (
    <section className="welcome">
      <h2>What would you like to know?</h2>
      <p className="muted">
        {learns ? "Say what you think of the answers: the next policy learns from it." : "Nothing is learned from this chat."}{" "}
        <span className="only-wide">
          <kbd>Esc</kbd> leaves the field, then <kbd>?</kbd> shows the keyboard shortcuts.
        </span>
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
