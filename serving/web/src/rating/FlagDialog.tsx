import { useId, useState } from "react";
import { MAX_TEXT } from "../api/feedback";
import { Dialog } from "../app/Dialog";
import { ReasonChips } from "./ReasonChips";
import { REPORT } from "./reasons";
import { Status } from "./Status";
import { useStanding } from "./useStanding";

export interface FlagDialogProps {
  completionId: string;
  onClose: () => void;
  /** Called once the ledger has the report, or has it no more. */
  onSaved?: (reported: boolean) => void;
}

/** Reports an answer that should not have been given. People read it; nothing is trained by it. */
export function FlagDialog({ completionId, onClose, onSaved }: FlagDialogProps) {
  const kept = useStanding();
  const [reasons, setReasons] = useState<string[]>([]);
  const [comment, setComment] = useState("");
  const field = useId();
  const reported = kept.accepted;
  const told = reasons.length > 0 || comment.trim() !== "";

  const report = async () => {
    if (!told || kept.phase === "saving") return;
    const more = { ...(reasons.length ? { reasons } : {}), ...(comment.trim() ? { comment } : {}) };
    if (await kept.want({ type: "flag", completion_id: completionId, ...more })) onSaved?.(true);
  };
  const takeBack = async () => {
    if (await kept.want(null)) onSaved?.(false);
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
            <button type="button" className="r-button" onClick={() => void takeBack()}>
              Take it back
            </button>
          )}
          <Status standing={kept} saved="Reported" />
        </div>
      </div>
    </Dialog>
  );
}
