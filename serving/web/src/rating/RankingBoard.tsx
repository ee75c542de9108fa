import { DndContext, PointerSensor, useSensor, useSensors } from "@dnd-kit/core";
import { useEffect, useId, useLayoutEffect, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
import { isTyping } from "../app/useKeys";
import { RankRow, type Control } from "./RankRow";
import { groupsOf, listed, rank, resumed, sent, shelfOf, type Move, type Ranking } from "./ranking";
import { afterPlacing, keyDone } from "./ranking_keys";
import { announcement, letterOf, summary } from "./ranking_words";
import { beside, Places, spotOf } from "./Places";
import { Status } from "./Status";
import type { Memory } from "./useAnswers";
import { useStanding } from "./useStanding";

export interface Ranked {
  feedbackId: string;
  /** The completion that the conversation goes on from. */
  winner: string | null;
  reveal: Readonly<Record<string, string>> | null;
  groups: string[][];
}

export interface RankingBoardProps {
  /** Two to eight answers to one prompt, in the order shown; their letters follow it. */
  answers: readonly { completionId: string; text: string; policy?: string | null }[];
  /** Of a blind offer: it tells who wrote what, in exchange for the ranking. */
  comparisonId?: string;
  /** Whoever refreshes the page goes on where they were. */
  memory?: Pick<Memory, "ranking" | "keepRanking">;
  renderText?: (text: string) => ReactNode;
  onRanked: (ranked: Ranked) => void;
  onUndone?: () => void;
  onClose?: () => void;
}

const plain = (text: string): ReactNode => <div className="r-text">{text}</div>;
const HELP =
  "Up and down go through the answers. A digit gives a place, 0 takes it away, the same digit twice is a tie. " +
  "Space lifts an answer: arrows move it, space drops it, Escape puts it back. Equals ties it with the place above, " +
  "or unties it. E opens or folds its text. Control and Enter submits.";
// Our own words are said instead: those of the library do not know of places and ties.
const SILENT = { onDragStart: () => "", onDragOver: () => "", onDragEnd: () => "", onDragCancel: () => "" };

/** Answers ranked by dragging or by keys alone, with ties, a shelf for the unranked, and "none is acceptable". */
export function RankingBoard(props: RankingBoardProps) {
  const { answers, renderText = plain, onClose } = props;
  const board = useBoard(props);
  const { ranking, focus, locked, move } = board;
  const [inHand, setInHand] = useState(false);
  const helpId = useId();
  const [folded, setFolded] = useState<ReadonlySet<string>>(new Set());
  const fold = (id: string) => setFolded((had) => had.symmetricDifference(new Set([id])));
  const sensors = useSensors(useSensor(PointerSensor, { activationConstraint: { distance: 4 } }));

  const pressed = (event: KeyboardEvent) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") return void board.submit();
    const { handle: id } = (event.target as HTMLElement).dataset;
    if (!id || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.toLowerCase() === "e") fold(id);
    else if (locked || !board.key(id, event.key)) return;
    event.preventDefault();
  };
  const row = (id: string) => {
    const index = ranking.candidates.indexOf(id);
    return (
      <RankRow
        key={id}
        id={id}
        ranking={ranking}
        focused={focus === id}
        locked={locked}
        folded={folded.has(id)}
        policy={board.policies[index] ?? null}
        helpId={helpId}
        text={renderText(answers[index]!.text)}
        onFocus={board.setFocus}
        onFold={fold}
        onMove={move}
      />
    );
  };

  return (
    <section
      ref={board.section}
      className="r-board"
      aria-label="Rank the answers"
      onKeyDown={pressed}
      onFocus={({ target }) => setInHand("handle" in target.dataset)}
      onBlur={() => setInHand(false)}
    >
      <div className="r-row">
        <Hint board={board} inHand={inHand} />
        <button
          type="button"
          className="r-link r-end"
          onClick={() => setFolded(new Set(folded.size ? [] : ranking.candidates))}
        >
          {folded.size ? "Show all" : "Fold all"}
        </button>
      </div>
      <details className="r-muted r-by-keys">
        <summary>Keys</summary>
        <p id={helpId}>{HELP}</p>
      </details>
      <DndContext
        sensors={sensors}
        collisionDetection={beside}
        accessibility={{ announcements: SILENT, screenReaderInstructions: { draggable: "" } }}
        onDragEnd={({ active, over }) => {
          const spot = over && spotOf(String(over.id));
          if (spot) move({ do: "put", id: String(active.id), spot }, "handle");
        }}
      >
        <Places groups={groupsOf(ranking)} shelf={shelfOf(ranking)} row={row} />
      </DndContext>
      <Foot board={board} onClose={onClose} />
      <p className="r-hidden" role="log" aria-live="assertive" aria-label="Moves">
        {board.spoken}
      </p>
    </section>
  );
}

type Board = ReturnType<typeof useBoard>;

/** Always in sight: what the ranking is, what can be done with it, and what became of it. */
/** What is to be done; nobody has keys on a phone. */
function Hint({ board: { ranking, focus, locked }, inHand }: { board: Board; inHand: boolean }) {
  if (locked) return <span className="r-muted">{ranking.noneAcceptable ? "Ranked." : "The chat goes on from the best."}</span>;
  return (
    <>
      <span className="r-muted r-by-keys">
        {inHand
          ? `Answer ${letterOf(ranking, focus)} has the keys: a digit gives it a place, and the next answer has them then. ↑ ↓ go to the others.`
          : "Drag by the handle, choose a place, or go to a handle by Tab and use the keys."}
      </span>
      <span className="r-muted r-by-finger">Drag by the handle, or choose a place.</span>
    </>
  );
}

function Foot({ board, onClose }: { board: Board; onClose: (() => void) | undefined }) {
  const { ranking, locked, kept, move } = board;
  return (
    <>
      {!locked && (
        <label className="r-row">
          <input
            type="checkbox"
            checked={ranking.noneAcceptable}
            onChange={(event) => move({ do: "none_acceptable", is: event.target.checked })}
          />
          None is acceptable, not even the best
        </label>
      )}
      <div className="r-votes">
        {!locked && <p className="r-summary">{summary(ranking)}</p>}
        {locked ? (
          <button type="button" data-control="undo" className="r-button" onClick={() => void board.undo()}>
            Undo
          </button>
        ) : (
          <>
            <button
              type="button"
              className="r-button r-primary"
              aria-keyshortcuts="Control+Enter"
              disabled={!sent(ranking) || kept.phase === "saving"}
              onClick={() => void board.submit()}
            >
              Submit ranking
            </button>
            <button type="button" className="r-link" onClick={() => move({ do: "clear" })}>
              Start over
            </button>
          </>
        )}
        <CloseButton label={locked ? "Close" : "Not now"} onClose={onClose} />
        <Status standing={kept} saved={`Saved: ${summary(ranking)}`} />
      </div>
    </>
  );
}

function CloseButton({ label, onClose }: { label: string; onClose: (() => void) | undefined }) {
  if (!onClose) return null;
  return (
    <button type="button" className="r-link" onClick={onClose}>
      {label}
    </button>
  );
}

/** A row that moves is drawn anew elsewhere: the focus goes after it, or on to the next answer in hand. */
function useKeptFocus(locked: boolean) {
  const section = useRef<HTMLElement>(null);
  // The keys work at once, unless somebody is writing elsewhere.
  useLayoutEffect(() => {
    if (isTyping(document.activeElement)) return;
    // "Submit" and "Undo" take each other's place, and the focus with them.
    const first = locked ? ["[data-control='undo']"] : [".r-shelf [data-handle]", "[data-handle]"];
    const found = first.map((each) => section.current?.querySelector<HTMLElement>(each));
    found.find((each) => each)?.focus({ preventScroll: true });
  }, [locked]);
  const wanted = useRef<Control | null>(null);
  useLayoutEffect(() => {
    if (!wanted.current) return;
    section.current?.querySelector<HTMLElement>(`[data-control="${wanted.current}"][tabindex="0"]`)?.focus();
    wanted.current = null;
  });
  const keepFocus = (control: Control | null) => {
    wanted.current = control;
  };
  return { section, keepFocus };
}

/** The ranking, the answer in hand, and what the ledger has of it. */
function useBoard({ answers, comparisonId, memory, onRanked, onUndone }: RankingBoardProps) {
  const candidates = answers.map(({ completionId }) => completionId);
  const [ranking, setRanking] = useState<Ranking>(() => resumed(candidates, memory?.ranking() ?? null));
  const [focus, setFocus] = useState(() => (shelfOf(ranking)[0] ?? listed(ranking)[0])!);
  const [spoken, setSpoken] = useState("");
  const shownAt = useRef(Date.now() / 1000);
  const kept = useStanding();
  const locked = kept.accepted !== null;
  const told = useRef<string | null>(null);
  const { section, keepFocus } = useKeptFocus(locked);
  useEffect(() => {
    if (!locked) memory?.keepRanking(ranking);
  }, [ranking, locked, memory]);

  const move = (next: Move, from: Control | null = null) => {
    if (locked) return;
    keepFocus(from);
    const after = rank(ranking, next);
    const about = next.do === "drop" || next.do === "cancel" ? (ranking.lifted?.id ?? null) : null;
    setRanking(after);
    setSpoken(announcement(ranking, after, "id" in next ? next.id : about));
    if ("id" in next) setFocus(next.do === "place" && from === "handle" ? afterPlacing(after, next.id) : next.id);
  };
  const key = (id: string, pressed: string): boolean => {
    const done = keyDone(ranking, id, pressed);
    if (done && "move" in done) move(done.move, "handle");
    if (done && "focus" in done) {
      keepFocus("handle");
      setFocus(done.focus);
    }
    return done !== null;
  };
  const submit = async () => {
    const said = sent(ranking);
    if (!said || locked || kept.phase === "saving") return;
    const order = [...ranking.candidates];
    const about = comparisonId ? { comparison_id: comparisonId } : { candidates: order };
    const when = { shown_at: shownAt.current, answered_at: Date.now() / 1000, presented_order: order };
    setRanking(rank(ranking, { do: "drop" }));
    await kept.want({ type: "ranking", ...about, ...said, ...when });
  };
  const undo = async () => {
    if (await kept.want(null)) onUndone?.();
  };

  const { accepted } = kept;
  useEffect(() => {
    if (told.current === (accepted?.id ?? null)) return;
    told.current = accepted?.id ?? null;
    if (!accepted) return;
    const groups = sent(ranking)?.ranking ?? [];
    onRanked({
      feedbackId: accepted.id,
      winner: accepted.continue_from ?? null,
      reveal: accepted.reveal ?? null,
      groups,
    });
  }, [accepted, ranking, onRanked]);

  const policies = answers.map(({ policy }, index) => {
    const name = answers.length === 2 ? ["left", "right"][index]! : String.fromCharCode(65 + index);
    return accepted ? (accepted.reveal?.[name] ?? policy ?? null) : null;
  });
  return { section, ranking, focus, setFocus, spoken, kept, locked, policies, move, key, submit, undo };
}
