import { useId, useState } from "react";
import type { KeptFeedback } from "../api/client";
import { MAX_TEXT, type Said } from "../api/feedback";
import { Dialog } from "../app/Dialog";
import { ReasonChips } from "./ReasonChips";
import { REPORT } from "./reasons";
import { Status } from "./Status";
import { useStanding } from "./useStanding";

type Flag = Extract<Said, { type: "flag" }>;

export interface FlagDialogProps {
  completionId: string;
  /** The report that stands already, as GET /v1/feedback lists it. */
  standing?: KeptFeedback | null;
  onClose: () => void;
  /** Called once the ledger has the report, or has it no more. */
  onSaved?: (reported: boolean) => void;
}

/** Reports an answer that should not have been given. People read it; nothing is trained by it. */
export function FlagDialog({ completionId, standing = null, onClose, onSaved }: FlagDialogProps) {
  const before = (standing?.judgement ?? {}) as Partial<Flag>;
  const [reasons, setReasons] = useState<string[]>([...(before.reasons ?? [])]);
  const [comment, setComment] = useState(before.comment ?? "");
  const [reported, setReported] = useState(standing !== null);
  const more = { ...(reasons.length ? { reasons } : {}), ...(comment.trim() ? { comment } : {}) };
  const flag: Flag = { type: "flag", completion_id: completionId, ...more };
  const kept = useStanding(standing && { id: standing.id, said: flag });
  const field = useId();
  const told = reasons.length > 0 || comment.trim() !== "";

  const want = async (said: Flag | null) => {
    if (!(await kept.want(said))) return;
    setReported(said !== null);
    onSaved?.(said !== null);
  };
  const report = async () => {
    if (told && kept.phase !== "saving") await want(flag);
  };
  return (
    <Dialog title="Report this answer" onClose={onClose}>
      <div className="r-flag">
        <p className="r-muted">Operators read reports. The model does not learn from them.</p>
        <ReasonChips label="What is wrong with it" options={REPORT} chosen={reasons} onChange={setReasons} />
        <label htmlFor={field}>What should they know? (optional)</label>
        <textarea
          id={field}
          rows={3}
          maxLength={MAX_TEXT}
          value={comment}
          onChange={(event) => setComment(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void report();
          }}
        />
        <div className="r-votes">
          <button type="button" className="r-button r-primary" disabled={!told} onClick={() => void report()}>
            {reported ? "Change report" : "Report"}
          </button>
          {reported && (
            <button type="button" className="r-button" onClick={() => void want(null)}>
              Take it back
            </button>
          )}
          <Status standing={kept} saved="Reported" />
        </div>
      </div>
    </Dialog>
  );
}
