import {
  createContext,
  useContext,
  useId,
  useLayoutEffect,
  useRef,
  useState,
  type FormEvent,
  type ReactNode,
  type RefObject,
} from "react";
import { ApiError } from "../../api/client";
import { Dialog } from "../../app/Dialog";
import { outcome, refused, unsure } from "./outcome";
import { SignedOut } from "./usePolled";

/** Says to who listens what became of a deed, where it is heard though the button is gone; `loud`, it is shown too. */
export const Say = createContext<(words: string, loud?: boolean) => void>(() => undefined);

interface ActProps {
  /** What it would be done to, as it stands: another one, and an open confirmation is of something else. */
  of: string;
  /** On the button that opens the dialog, and in it on the one that acts. */
  name: string;
  title: string;
  /** Whether a reason is asked for, for the record. */
  reason?: "none" | "optional" | "required";
  danger?: boolean;
  primary?: boolean;
  disabled?: boolean;
  /** Before its dialog is shown: a form in it begins anew. */
  onOpen?: () => void;
  act: (reason: string) => Promise<unknown>;
  /** After it was done, or may have been, or was refused as things stand: what is shown is out of date then. */
  onDone?: () => void;
  /** What it will do, and what it will not. */
  children: ReactNode;
}

/** A deed that others see: it is confirmed first, and says what became of it. */
export function Act({ name, danger, primary, disabled, onOpen, ...rest }: ActProps) {
  const [open, setOpen] = useState(false);
  const say = useContext(Say);
  const here = useFocusKept();
  const left = useLeft();
  const look = danger ? "danger" : primary ? "primary" : undefined;
  return (
    <span className="c-act" ref={here}>
      <button type="button" className={look} disabled={disabled} onClick={() => (say(""), onOpen?.(), setOpen(true))}>
        {name}
      </button>
      {open && (
        <Deed
          name={name}
          look={look}
          left={left}
          {...rest}
          onClose={(done) => {
            setOpen(false);
            if (done) say(`${name}: done.`);
          }}
        />
      )}
    </span>
  );
}

/** What is done with often takes its button along: whoever was at it goes on from the top of the view. */
function useFocusKept() {
  const here = useRef<HTMLSpanElement>(null);
  useLayoutEffect(() => {
    const place = here.current!;
    const main = place.closest("main");
    return () => {
      if (!place.contains(document.activeElement)) return;
      queueMicrotask(() => document.activeElement === document.body && main?.focus({ preventScroll: true }));
    };
  }, []);
  return here;
}

const ENDED = "This changed while you read it; nothing was done.";

/** What an open confirmation leaves to be said if it is taken away; null while the deed is under way. */
interface Left {
  words: string | null;
  gone: boolean;
}

function useLeft() {
  const say = useContext(Say);
  const left = useRef<Left>({ words: null, gone: false });
  const latest = useRef(say);
  latest.current = say;
  useLayoutEffect(() => {
    left.current.gone = false;
    return () => {
      left.current.gone = true;
      if (left.current.words !== null) latest.current(left.current.words, true);
    };
  }, []);
  return left;
}

interface DeedProps extends Pick<ActProps, "of" | "name" | "title" | "reason" | "act" | "onDone" | "children"> {
  look: string | undefined;
  left: RefObject<Left>;
  onClose: (done: boolean) => void;
}

/** It says to the end what it said when it was opened, and does that or nothing. */
function Deed({ reason = "optional", act, onDone, onClose, left, ...now }: DeedProps) {
  const begun = useRef(now);
  const moved = now.of !== begun.current.of;
  if (!moved) begun.current = { ...begun.current, children: now.children }; // it may hold a form
  const { name, title, look, children } = begun.current;
  const [why, setWhy] = useState("");
  const [acting, setActing] = useState(false);
  const [problem, setProblem] = useState<unknown>(null);
  const signedOut = useContext(SignedOut);
  const field = useId();
  const say = useContext(Say);
  useLayoutEffect(() => {
    left.current.words = acting ? null : problem === null ? ENDED : outcome(problem);
    return () => {
      left.current.words = null;
    };
  }, [left, acting, problem]);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (moved) return;
    setActing(true);
    setProblem(null);
    try {
      await act(why.trim());
      onDone?.();
      onClose(true);
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return signedOut();
      if (refused(error) || unsure(error)) onDone?.();
      if (left.current.gone) say(outcome(error), true);
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
            {outcome(problem)}
          </p>
        )}
        {moved && !acting && problem === null && (
          <p className="failure" role="alert">
            This changed while you read it; nothing was done. Close it and look again.
          </p>
        )}
        <footer>
          <button type="button" disabled={acting} onClick={() => onClose(false)}>
            Cancel
          </button>
          <button type="submit" className={look} disabled={acting || moved || (reason === "required" && !why.trim())}>
            {acting ? "Working…" : name}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
