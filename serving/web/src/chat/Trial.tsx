/** Answers that are to be judged against each other before the chat goes on from the best. */
import { useEffect, useRef, type ReactNode } from "react";
import type { Message } from "../api/client";
import { Comparison, RankingBoard, type Memory, type Source } from "../rating";
import { begunIn, type Answers } from "../rating/answers";
import { useAnswers } from "../rating/useAnswers";
import { useHotkeys } from "../rating/useHotkeys";
import { Markdown } from "./Markdown";

export interface Trial {
  parent: string | null;
  messages: Message[];
  way: Way;
  /** It came from the composer, and these answers were there before. */
  asked: { known: ReadonlySet<string> } | null;
}

type Way =
  | { kind: "compare"; source: Source }
  /** New ones, blind. */
  | { kind: "rank"; source: Source }
  /** Those that are there, blind until they are ranked. */
  | { kind: "rank-known"; answers: Ranked };

type Ranked = { completionId: string; text: string; policy?: string | null }[];

interface TrialViewProps {
  trial: Trial;
  memory?: Memory;
  /** The chat goes on from this answer. */
  onDecided: (winner: string | null) => void;
  onClose: () => void;
}

const markdown = (text: string): ReactNode => <Markdown text={text} />;

export function TrialView(props: TrialViewProps) {
  const place = useRef<HTMLDivElement>(null);
  // Keys are votes now, and what is judged is in view from its beginning.
  useEffect(() => {
    if (!place.current?.contains(document.activeElement)) place.current?.focus({ preventScroll: true });
    place.current?.scrollIntoView({ block: "start" });
  }, []);
  return (
    <div className="trial" ref={place} tabIndex={-1}>
      <Judged {...props} />
    </div>
  );
}

function Judged({ trial: { way }, memory, onDecided, onClose }: TrialViewProps) {
  if (way.kind === "compare") {
    return (
      <Comparison
        source={way.source}
        {...(memory ? { memory } : {})}
        renderText={markdown}
        onDecided={({ winner }) => onDecided(winner)}
        onClose={onClose}
      />
    );
  }
  if (way.kind === "rank-known") {
    return (
      <RankingBoard
        answers={way.answers}
        {...(memory ? { memory } : {})}
        renderText={markdown}
        onRanked={({ winner }) => onDecided(winner)}
        onClose={onClose}
      />
    );
  }
  return <NewRanking source={way.source} memory={memory} onDecided={onDecided} onClose={onClose} />;
}

interface NewRankingProps {
  source: Source;
  memory: Memory | undefined;
  onDecided: (winner: string | null) => void;
  onClose: () => void;
}

function NewRanking({ source, memory, onDecided, onClose }: NewRankingProps) {
  const { answers, phase, problem, stop, again } = useAnswers(source, memory);
  const known = rankable(answers);
  useHotkeys({ escape: stop }, phase === "writing");
  if (phase === "ended" && known.length >= 2) {
    // What was offered is ranked as a whole; without those that never began, the answers are named one by one.
    const whole = known.length === answers.slots.length && answers.comparisonId;
    return (
      <RankingBoard
        answers={known}
        {...(whole ? { comparisonId: whole } : {})}
        {...(memory ? { memory } : {})}
        renderText={markdown}
        onRanked={({ winner }) => onDecided(winner)}
        onClose={onClose}
      />
    );
  }
  const finished = answers.slots.filter((slot) => slot.finished).length;
  const said = {
    writing: problem ?? `${answers.slots.length} answers are being written: ${finished} finished.`,
    ended: answers.stored
      ? "There are not two answers to rank."
      : "These answers are not kept, so they cannot be ranked.",
    failed: problem,
  };
  return (
    <section className="ranking-wait" aria-label="Answers to rank">
      <p role="status">{said[phase]}</p>
      <div>
        {phase !== "writing" ? (
          <button type="button" onClick={again}>
            Try again
          </button>
        ) : (
          <button type="button" aria-keyshortcuts="Escape" title="Stop (Esc)" onClick={stop}>
            Stop and rank what there is
          </button>
        )}
        <button type="button" className="link" onClick={onClose}>
          Not now
        </button>
      </div>
      <ol className="previews">
        {answers.slots.map((slot, index) => (
          <li key={index}>
            <Markdown text={slot.text} />
          </li>
        ))}
      </ol>
    </section>
  );
}

/** Those that the gateway has and that show something. */
function rankable({ slots, completionIds, stored }: Answers): { completionId: string; text: string }[] {
  if (!stored) return [];
  const all = slots.map((slot, index) => ({ slot, completionId: completionIds[index] }));
  return all.flatMap(({ slot, completionId }) =>
    completionId !== undefined && begunIn(slot) ? [{ completionId, text: slot.text }] : [],
  );
}
