import { memo, useEffect, useRef, useState, type CSSProperties, type ReactNode } from "react";
import type { Accepted } from "../api/client";
import { letter, votable, type Slot } from "./answers";
import { Status } from "./Status";
import { useAnswers, type Memory, type Source, type Written } from "./useAnswers";
import { useHotkeys } from "./useHotkeys";
import { useStanding } from "./useStanding";
import { votesOn, voteSaid, writerOf, type Vote } from "./votes";

export interface Decision {
  feedbackId: string;
  /** The completion that the conversation goes on from. */
  winner: string | null;
  vote: Vote["winner"];
  conversationId: string | null;
  answers: { completionId: string; text: string; partial: boolean; policy: string | null }[];
}

export interface ComparisonProps {
  source: Source;
  memory?: Memory;
  /** How an answer is set: the chat's markdown. */
  renderText?: (text: string, writing: boolean) => ReactNode;
  /** Called once the ledger has the vote. */
  onDecided: (decision: Decision) => void;
  onUndone?: () => void;
  /** Leave it, undecided or done. */
  onClose?: () => void;
  hotkeys?: boolean;
}

const plain = (text: string): ReactNode => <div className="r-text">{text}</div>;

/** Answers side by side, blind until the vote, which may come while they are being written. */
export function Comparison({
  source,
  memory,
  renderText = plain,
  onDecided,
  onUndone,
  onClose,
  hotkeys = true,
}: ComparisonProps) {
  const written = useAnswers(source, memory);
  const { answers, phase } = written;
  const kept = useStanding();
  const [chosen, setChosen] = useState<Vote | null>(null);
  const undo = useRef<HTMLButtonElement>(null);
  const section = useRef<HTMLElement>(null);
  const count = answers.slots.length;
  const votes = votesOn(count);
  const ready = phase !== "failed" && votable(answers);
  const decided = kept.accepted;
  const policies = answers.slots.map((_, slot) =>
    decided ? (writerOf(decided.reveal, count, slot) ?? answers.policies[slot] ?? null) : null,
  );

  const vote = async (choice: Vote) => {
    if (!ready || decided || kept.phase === "saving") return;
    setChosen(choice);
    await kept.want(voteSaid(answers, choice.winner, written.shownAt, Date.now() / 1000));
  };
  const takeBack = async () => {
    if (!(await kept.want(null))) return;
    setChosen(null);
    onUndone?.();
  };
  useDecision(decided, () => {
    undo.current?.focus({ preventScroll: true });
    onDecided({
      feedbackId: decided!.id,
      winner: decided!.continue_from ?? null,
      vote: chosen!.winner,
      conversationId: answers.conversationId,
      answers: answers.slots.map(({ text, partial }, slot) => ({
        completionId: answers.completionIds[slot]!,
        text,
        partial,
        policy: policies[slot]!,
      })),
    });
  });
  const stopping = phase === "writing" && !decided;
  useHotkeys(
    {
      ...Object.fromEntries(
        votes.flatMap((each) => each.keys.map((key) => [key.toLowerCase(), () => void vote(each)])),
      ),
      ...(decided ? { u: () => void takeBack() } : {}),
      ...(stopping ? { escape: written.stop } : {}),
    },
    hotkeys,
    section,
  );

  return (
    <section ref={section} className="r-comparison" aria-label="Which answer is better?">
      <div className="r-columns" style={{ "--r-count": count } as CSSProperties}>
        {answers.slots.map((slot, index) => (
          <Column
            key={index}
            name={`Answer ${letter(index)}`}
            slot={slot}
            failed={phase === "failed"}
            policy={policies[index]!}
            preferred={decided !== null && chosen?.keys[0] === letter(index)}
            render={renderText}
          />
        ))}
      </div>
      <div className="r-votes">
        {decided ? (
          <button ref={undo} type="button" className="r-button" aria-keyshortcuts="u" onClick={() => void takeBack()}>
            Undo <kbd aria-hidden="true">U</kbd>
          </button>
        ) : (
          votes.map((each) => (
            <VoteButton
              key={each.winner}
              vote={each}
              disabled={!ready}
              chosen={chosen?.winner === each.winner}
              onVote={vote}
            />
          ))
        )}
        {stopping && (
          <button type="button" className="r-link" onClick={written.stop}>
            Stop
          </button>
        )}
        {onClose && (
          <button type="button" className="r-link" onClick={onClose}>
            {decided ? "Close" : "Not now"}
          </button>
        )}
        <Status standing={kept} saved={chosen ? `Saved: ${chosen.label}` : "Saved"} />
      </div>
      <Progress written={written} decided={decided !== null} />
    </section>
  );
}

/** Once for each vote that the ledger has. */
function useDecision(decided: Accepted | null, tell: () => void): void {
  const latest = useRef(tell);
  useEffect(() => {
    latest.current = tell;
  });
  useEffect(() => {
    if (decided) latest.current();
  }, [decided]);
}

interface ColumnProps {
  name: string;
  slot: Slot;
  failed: boolean;
  policy: string | null;
  preferred: boolean;
  render: (text: string, writing: boolean) => ReactNode;
}

const Column = memo(function Column({ name, slot, failed, policy, preferred, render }: ColumnProps) {
  const writing = !slot.finished && !failed;
  return (
    <article className={`r-column${preferred ? " r-preferred" : ""}`} aria-label={name} aria-busy={writing}>
      <header className="r-row">
        <strong>{name}</strong>
        {policy && <span className="r-policy">{policy}</span>}
        {preferred && <span className="r-muted">your choice</span>}
        {slot.partial && <span className="r-muted">stopped early</span>}
      </header>
      {slot.text ? (
        render(slot.text, writing)
      ) : (
        <p className="r-muted">{writing ? "Writing…" : "Nothing was written."}</p>
      )}
    </article>
  );
});

interface VoteButtonProps {
  vote: Vote;
  disabled: boolean;
  chosen: boolean;
  onVote: (vote: Vote) => Promise<void>;
}

function VoteButton({ vote, disabled, chosen, onVote }: VoteButtonProps) {
  return (
    <button
      type="button"
      className="r-button"
      aria-keyshortcuts={vote.keys.join(" ").toLowerCase()}
      aria-pressed={chosen}
      disabled={disabled}
      onClick={() => void onVote(vote)}
    >
      {vote.label} <kbd aria-hidden="true">{vote.keys[0]}</kbd>
    </button>
  );
}

/** Beginning and end are said aloud, not each word. */
function Progress({ written, decided }: { written: Written; decided: boolean }) {
  const { answers, phase, problem, again } = written;
  if (decided) return null;
  if (phase === "failed") {
    return (
      <p className="r-problem" role="alert">
        {problem} These answers cannot be compared.{" "}
        <button type="button" className="r-link" onClick={again}>
          Ask again
        </button>
      </p>
    );
  }
  if (problem) {
    return (
      <p className="r-problem" role="alert">
        {problem}
      </p>
    );
  }
  if (!answers.stored) return <p className="r-muted">These answers were not kept, so they cannot be judged.</p>;
  const writing = "The answers are being written. You may vote before they end.";
  return (
    <p className="r-hidden" aria-live="polite">
      {phase === "writing" ? writing : "The answers are complete."}
    </p>
  );
}
