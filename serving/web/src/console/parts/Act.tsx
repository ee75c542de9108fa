import { useContext, useId, useState, type FormEvent, type ReactNode } from "react";
import { ApiError, explain } from "../../api/client";
import { Dialog } from "../../app/Dialog";
import { SignedOut } from "./usePolled";

interface ActProps {
  /** On the button that opens the dialog, and in it on the one that acts. */
  name: string;
  title: string;
  /** Whether a reason is asked for, for the record. */
  reason?: "none" | "optional" | "required";
  danger?: boolean;
  primary?: boolean;
  disabled?: boolean;
  act: (reason: string) => Promise<unknown>;
  /** After it was done, and after a conflict: what is shown is out of date then. */
  onDone?: () => void;
  /** What it will do, and what it will not. */
  children: ReactNode;
}

/** A deed that others see: it is confirmed first, and says what became of it. */
export function Act({ name, title, danger, primary, disabled, ...rest }: ActProps) {
  const [open, setOpen] = useState(false);
  const [said, setSaid] = useState("");
  const look = danger ? "danger" : primary ? "primary" : undefined;
  return (
    <span className="c-act">
      <button type="button" className={look} disabled={disabled} onClick={() => (setSaid(""), setOpen(true))}>
        {name}
      </button>
      <span role="status" className="quiet">
        {said}
      </span>
      {open && (
        <Deed
          name={name}
          title={title}
          look={look}
          {...rest}
          onClose={(done) => {
            setOpen(false);
            setSaid(done ? `${name}: done.` : "");
          }}
        />
      )}
    </span>
  );
}

interface DeedProps extends Pick<ActProps, "name" | "title" | "reason" | "act" | "onDone" | "children"> {
  look: string | undefined;
  onClose: (done: boolean) => void;
}

function Deed({ name, title, look, reason = "optional", act, onDone, onClose, children }: DeedProps) {
  const [why, setWhy] = useState("");
  const [acting, setActing] = useState(false);
  const [problem, setProblem] = useState<unknown>(null);
  const signedOut = useContext(SignedOut);
  const field = useId();
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setActing(true);
    setProblem(null);
    try {
      await act(why.trim());
      onDone?.();
      onClose(true);
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return signedOut();
      if (conflict(error)) onDone?.();
      setProblem(error);
      setActing(false);
    }
  };
  return (
    // What is under way is not walked away from: whether it was done would stay unknown.
    <Dialog title={title} onClose={() => acting || onClose(false)}>
      <form onSubmit={(event) => void submit(event)} className="c-deed">
        {children}
        {reason !== "none" && (
          <label htmlFor={field}>
            <span>Reason {reason === "optional" && <span className="muted">(optional)</span>}</span>
            <input
              id={field}
              type="text"
              maxLength={300}
              required={reason === "required"}
              value={why}
              onChange={(event) => setWhy(event.target.value)}
            />
          </label>
        )}
        {problem !== null && (
          <p className="failure" role="alert">
            {conflict(problem) ? `Somebody else was quicker, and this was not done: ${explain(problem)}` : explain(problem)}
          </p>
        )}
        <footer>
          <button type="button" disabled={acting} onClick={() => onClose(false)}>
            Cancel
          </button>
          <button type="submit" className={look} disabled={acting || (reason === "required" && !why.trim())}>
            {acting ? "Working…" : name}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

const conflict = (error: unknown): boolean => error instanceof ApiError && error.status === 409;
