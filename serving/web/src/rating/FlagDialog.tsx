import { useEffect, useId, useState } from "react";
import type { KeptFeedback } from "../api/client";
import { MAX_TEXT, type Said } from "../api/feedback";
import { Dialog } from "../app/Dialog";
import { ReasonChips } from "./ReasonChips";
import { REPORT } from "./reasons";
import { Status } from "./Status";
import { useStanding } from "./useStanding";

type Flag = Extract<Said, { type: "flag" }>;

export interface Report {
  reasons: string[];
  comment: string;
}

export interface FlagDialogProps {
  completionId: string;
  /** The report that stands already, as GET /v1/feedback lists it. */
  standing?: KeptFeedback | null;
  /** A report that was begun before and not sent. */
  begun?: Report | null;
  /** What is not sent yet; null when all of it is. */
  onDraft?: (report: Report | null) => void;
  onClose: () => void;
  /** Called once the ledger has the report, or has it no more. */
  onSaved?: (reported: boolean) => void;
}

function flagOf(completionId: string, { reasons, comment }: Report): Flag {
  const more = { ...(reasons.length ? { reasons } : {}), ...(comment.trim() ? { comment } : {}) };
  return { type: "flag", completion_id: completionId, ...more };
}

function reportIn(standing: KeptFeedback | null): Report {
  const { reasons, comment } = (standing?.judgement ?? {}) as Partial<Flag>;
  return { reasons: [...(reasons ?? [])], comment: comment ?? "" };
}

/** Reports an answer that should not have been given. People read it; nothing is trained by it. */
export function FlagDialog({ completionId, standing = null, begun = null, onDraft, onClose, onSaved }: FlagDialogProps) {
  const [sent, setSent] = useState(() => reportIn(standing));
  const [{ reasons, comment }, setReport] = useState(begun ?? sent);
  const [reported, setReported] = useState(standing !== null);
  const kept = useStanding(standing && { id: standing.id, said: flagOf(completionId, sent) });
  const field = useId();
  const flag = flagOf(completionId, { reasons, comment });
  const told = reasons.length > 0 || comment.trim() !== "";
  const unsent = JSON.stringify(flag) !== JSON.stringify(flagOf(completionId, sent));
  useEffect(() => onDraft?.(unsent ? { reasons, comment } : null), [reasons, comment, unsent]);

  const want = async (said: Flag | null) => {
    if (!(await kept.want(said))) return;
    setSent({ reasons, comment }); // what was taken back is not begun anew either
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
        <ReasonChips
          label="What is wrong with it"
          options={REPORT}
          chosen={reasons}
          onChange={(chosen) => setReport({ reasons: chosen, comment })}
        />
        <label htmlFor={field}>What should they know? (optional)</label>
        <textarea
          id={field}
          rows={3}
          maxLength={MAX_TEXT}
          value={comment}
          onChange={(event) => setReport({ reasons, comment: event.target.value })}
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
