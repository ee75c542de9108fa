import { useRef, useState, type ReactNode, type Ref } from "react";
import { AgainIcon, FlagIcon, PenIcon, RankIcon, SidesIcon } from "../app/icons";
import { EditAnswer, FlagDialog, SaidBefore, ThumbBar, type Report } from "../rating";
import { begunWords, keepWords } from "./begun_words";
import { CopyButton } from "./CopyButton";
import { forgetSaid, judged, useSaid } from "./said";
import type { Turn } from "./tree";

export interface AnswerActs {
  again: () => void;
  beside: () => void;
  rankAll: () => void;
}

interface AnswerActionsProps {
  /** The conversation. */
  chat: string;
  turn: Turn;
  busy: boolean;
  kept: boolean;
  learns: boolean;
  last: boolean;
  correcting: boolean;
  onCorrect: (correcting: boolean) => void;
  acts: AnswerActs;
  switcher: ReactNode;
}

/** What can be said of an answer and done with it. */
export function AnswerActions(props: AnswerActionsProps) {
  const { chat, turn, busy, kept, learns, last, correcting, onCorrect, acts, switcher } = props;
  const { node, answers } = turn;
  const id = node.completion_id;
  const [changes, setChanges] = useState(0);
  const said = useSaid(id, kept, changes);
  const words = begunWords(chat, id);
  const pen = useRef<HTMLButtonElement>(null);
  const [reporting, setReporting] = useState(words.report?.open ?? false);
  const rating = said?.find(({ type, judgement }) => type === "rating" && judgement["metric"] == null) ?? null;
  const demonstration = said?.find(({ type }) => type === "demonstration");
  const flag = said?.find(({ type }) => type === "flag") ?? null;
  const lookAgain = () => {
    judged(id);
    setChanges((count) => count + 1);
  };
  const keep = (what: "comment" | "correction") => (text: string | null) => keepWords(chat, id, what, text);
  const keepReport = (report: Report | null, open = true) => keepWords(chat, id, "report", report && { ...report, open });
  // What was begun waits for whoever opens it again.
  const leaveReport = () => {
    keepReport(begunWords(chat, id).report ?? null, false);
    setReporting(false);
  };
  const leaveCorrection = () => {
    onCorrect(false);
    pen.current?.focus();
  };
  const act = (label: string, icon: ReactNode, run: () => void, key = "", ref?: Ref<HTMLButtonElement>) => (
    <button
      ref={ref}
      type="button"
      className="icon"
      aria-label={label}
      title={key ? `${label} (${key})` : label}
      disabled={busy}
      onClick={run}
    >
      {icon}
    </button>
  );
  return (
    <>
      <div className={last ? "actions last" : "actions"}>
        {switcher}
        <CopyButton text={node.content} label="Copy answer" />
        {act("Another answer in its place", <AgainIcon />, acts.again, "R")}
        {kept && act("Another answer side by side", <SidesIcon />, acts.beside, "S")}
        {kept && answers.ids.length > 2 && act(`Rank these ${answers.ids.length} answers`, <RankIcon />, acts.rankAll)}
        {kept && act("Edit into what it should have been", <PenIcon />, () => onCorrect(true), "E", pen)}
        {kept && act(flag ? "Your report of this answer" : "Report this answer", <FlagIcon />, () => setReporting(true))}
        {kept && said && (
          <ThumbBar
            completionId={id}
            standing={rating}
            begun={words.comment ?? null}
            onDraft={keep("comment")}
            hotkeys={last && !busy && !correcting}
            onSaved={() => judged(id)}
          />
        )}
        {demonstration && <span className="muted small">corrected</span>}
        {node.policy_version !== null && <span className="muted small policy">policy-v{node.policy_version}</span>}
      </div>
      {said && <SaidBefore completionId={id} said={said} onTakenBack={forgetSaid} />}
      {correcting && said && (
        <EditAnswer
          completionId={id}
          text={node.content}
          learns={learns}
          saved={demonstration ? { id: demonstration.id, content: String(demonstration.judgement["content"]) } : null}
          begun={words.correction ?? null}
          onDraft={keep("correction")}
          onSaved={lookAgain}
          onClose={leaveCorrection}
        />
      )}
      {reporting && said && (
        <FlagDialog
          completionId={id}
          standing={flag}
          begun={words.report ?? null}
          onDraft={keepReport}
          onSaved={lookAgain}
          onClose={leaveReport}
        />
      )}
    </>
  );
}
