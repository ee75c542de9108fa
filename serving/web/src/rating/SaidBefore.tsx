import { useState } from "react";
import { explain, type KeptFeedback } from "../api/client";
import { takeBack } from "../api/feedback";

interface Props {
  completionId: string;
  said: readonly KeptFeedback[];
  onTakenBack: () => void;
}

const WORDS: Partial<Record<KeptFeedback["type"], string>> = {
  rating: "rating", comparison: "vote", ranking: "ranking", demonstration: "correction",
};

/** How this answer came off in the votes and rankings that stand, and what learned from what was said of it. */
export function SaidBefore({ completionId, said, onTakenBack }: Props) {
  const learned = [...new Set(said.flatMap(({ learned }) => learned))];
  const taught = [...new Set(said.flatMap(({ type, learned }) => (learned.length > 0 ? [WORDS[type] ?? type] : [])))];
  return (
    <>
      {said.filter((kept) => !repeats(kept, said)).flatMap((kept) => {
        const words = verdict(completionId, kept);
        return words ? [<Verdict key={kept.id} kept={kept} words={words} onTakenBack={onTakenBack} />] : [];
      })}
      {learned.length > 0 && (
        <p className="muted small">
          Your {taught.join(" and ")} helped to train {learned.join(", ")}.
        </p>
      )}
    </>
  );
}

function Verdict({ kept, words, onTakenBack }: { kept: KeptFeedback; words: string; onTakenBack: () => void }) {
  const [state, setState] = useState<"stands" | "going" | "gone">("stands");
  const [problem, setProblem] = useState("");
  const undo = async () => {
    setState("going");
    setProblem("");
    try {
      await takeBack(kept.id);
      setState("gone");
      onTakenBack();
    } catch (error) {
      setState("stands");
      setProblem(`Not taken back. ${explain(error)}`);
    }
  };
  return (
    <p className="muted small">
      {state !== "gone" && (
        <>
          {words}{" "}
          <button type="button" className="link" disabled={state === "going"} onClick={() => void undo()}>
            Take it back
          </button>
        </>
      )}{" "}
      <span role="status">{state === "gone" ? "Taken back" : problem}</span>
    </p>
  );
}

/** Whether it judges a pair that came again: what was said first is what counts. */
const repeats = (kept: KeptFeedback, said: readonly KeptFeedback[]): boolean =>
  said.some((other) => pairOf(other) !== null && pairOf(other) === pairOf(kept) && other.created < kept.created);

const pairOf = ({ judgement }: KeptFeedback): string | null =>
  judgement.type === "comparison" ? [judgement.left, judgement.right].sort().join(" ") : null;

/** Null of what is no judgement between answers. */
export function verdict(id: string, { judgement }: Pick<KeptFeedback, "judgement">): string | null {
  if (judgement.type === "comparison") {
    const { left, winner } = judgement;
    if (winner === "tie") return "You found it as good as the other answer.";
    if (winner === "both_bad") return "You found it and the other answer bad.";
    return (left === id) === (winner === "left") ? "Your choice of two answers." : "You chose the other answer.";
  }
  if (judgement.type !== "ranking") return null;
  const groups = judgement["ranking"] as string[][];
  const of = (judgement["candidates"] as string[]).length;
  const at = groups.findIndex((group) => group.includes(id));
  const none = judgement["none_acceptable"] ? ", none acceptable" : "";
  if (at < 0) return `You ranked it below the others, of ${of} answers${none}.`;
  const tied = groups[at]!.length > 1 ? ", tied" : "";
  return `You ranked it at place ${at + 1}${tied}, of ${of} answers${none}.`;
}
