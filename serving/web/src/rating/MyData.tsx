import { useEffect, useId, useState } from "react";
import { explain, me, type DeletedMe, type KeptFeedback } from "../api/client";
import { said, takeBack } from "../api/feedback";
import { Link } from "../app/Link";
import { chatPath } from "../app/route";
import { collectAgain, ROUNDS_BEGIN_AGAIN } from "./erased_words";
import { detailsOf, titleOf } from "./said_words";

export interface MyDataProps {
  /** Called when somebody goes to a conversation. */
  onLeave?: () => void;
  /** Called once a judgement stands no more. */
  onTakenBack?: () => void;
  /** Called after everything was erased. */
  onErased?: () => void;
}

type Leaving = Pick<MyDataProps, "onLeave">;
type Acts = Pick<MyDataProps, "onLeave" | "onTakenBack">;

const SHOWN_AT_FIRST = 50;
const ERASE = "delete everything";

/** What one has said, taken away, and erased. */
export function MyData({ onErased, ...acts }: MyDataProps) {
  const [erased, setErased] = useState<DeletedMe | null>(null);
  return (
    <section className="r-mydata" aria-label="My data">
      <MySaid key={erased ? "erased" : "kept"} {...acts} />
      <section aria-labelledby="r-export">
        <h2 id="r-export">Take it along</h2>
        <p>All conversations, answers and judgements, one JSON object a line.</p>
        <a className="r-button" href={me.exportUrl} download="ratchet-my-data.jsonl">
          Export my data
        </a>
      </section>
      <Erase
        erased={erased}
        onErased={(facts) => {
          setErased(facts);
          onErased?.();
        }}
      />
    </section>
  );
}

/** Newest first. The API lists the oldest first, so all of it is read before the newest is known. */
function MySaid(acts: Acts) {
  const [kept, setKept] = useState<KeptFeedback[]>([]);
  const [reading, setReading] = useState(true);
  const [problem, setProblem] = useState<string | null>(null);
  const [all, setAll] = useState(false);
  useEffect(() => {
    let gone = false;
    const read = async () => {
      for await (const page of said()) {
        if (gone) return;
        setKept((had) => [...page.toReversed(), ...had]);
      }
    };
    read()
      .catch((error: unknown) => !gone && setProblem(explain(error)))
      .finally(() => !gone && setReading(false));
    return () => {
      gone = true;
    };
  }, []);

  const shown = all ? kept : kept.slice(0, SHOWN_AT_FIRST);
  return (
    <section aria-labelledby="r-said" aria-busy={reading}>
      <h2 id="r-said">What I said</h2>
      {problem && (
        <p className="r-problem" role="alert">
          {problem}
        </p>
      )}
      {!reading && !problem && kept.length === 0 && <p className="r-muted">Nothing yet.</p>}
      <ul className="r-said">
        {shown.map((each) => (
          <SaidItem key={each.id} kept={each} {...acts} />
        ))}
      </ul>
      {shown.length < kept.length && (
        <button type="button" className="r-button" onClick={() => setAll(true)}>
          Show all {kept.length}
        </button>
      )}
    </section>
  );
}

/** It stays in view after it was taken back, so that one sees that it was. */
function SaidItem({ kept, onLeave, onTakenBack }: Acts & { kept: KeptFeedback }) {
  const [phase, setPhase] = useState<"stands" | "going" | "gone">("stands");
  const [problem, setProblem] = useState<string | null>(null);
  const title = titleOf(kept);
  const when = new Date(kept.created * 1000);
  const undo = async () => {
    setPhase("going");
    setProblem(null);
    try {
      await takeBack(kept.id);
      setPhase("gone");
      onTakenBack?.();
    } catch (error) {
      setProblem(`Not taken back. ${explain(error)}`);
      setPhase("stands");
    }
  };
  return (
    <li className={phase === "gone" ? "r-gone" : undefined}>
      <div className="r-row">
        <strong>{title}</strong>
        <time className="r-muted" dateTime={when.toISOString()}>
          {when.toLocaleString()}
        </time>
        {phase !== "gone" && (
          <button
            type="button"
            className="r-link r-end"
            aria-label={`Take back: ${title}`}
            disabled={phase === "going"}
            onClick={() => void undo()}
          >
            Take back
          </button>
        )}
        <span role="status">{phase === "gone" ? "Taken back" : (problem ?? "")}</span>
      </div>
      {kept.about && <About {...kept.about} onLeave={onLeave} />}
      {kept.learned.length > 0 && <p className="r-detail">Helped to train {kept.learned.join(", ")}.</p>}
      {detailsOf(kept).map((line, index) => (
        <p key={index} className="r-detail">
          {line}
        </p>
      ))}
    </li>
  );
}

interface AboutProps extends Leaving {
  conversation_id: string | null;
  question: string;
}

function About({ conversation_id, question, onLeave }: AboutProps) {
  const words = question || "Untitled";
  return (
    <p className="r-about">
      {conversation_id === null ? (
        words
      ) : (
        <Link to={chatPath(conversation_id)} {...(onLeave && { onOpen: onLeave })}>
          {words}
        </Link>
      )}
    </p>
  );
}

interface EraseProps {
  erased: DeletedMe | null;
  onErased: (facts: DeletedMe) => void;
}

function Erase({ erased, onErased }: EraseProps) {
  const [typed, setTyped] = useState("");
  const [erasing, setErasing] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const field = useId();
  const meant = typed.trim().toLowerCase() === ERASE;
  const erase = async () => {
    if (!meant || erasing) return;
    setErasing(true);
    setProblem(null);
    try {
      onErased(await me.delete());
      setTyped("");
    } catch (error) {
      setProblem(`It may not all be erased: do it again. ${explain(error)}`);
    } finally {
      setErasing(false);
    }
  };
  return (
    <section aria-labelledby="r-erase">
      <h2 id="r-erase">Erase everything</h2>
      <p>
        Erases all your conversations, answers and judgements for good. Policies that have learned from them stay as
        they are; they are named afterwards. {ROUNDS_BEGIN_AGAIN}
      </p>
      <form
        className="r-row"
        onSubmit={(event) => {
          event.preventDefault();
          void erase();
        }}
      >
        <label htmlFor={field}>
          Type <q>{ERASE}</q> to confirm
        </label>
        <input id={field} autoComplete="off" value={typed} onChange={(event) => setTyped(event.target.value)} />
        <button type="submit" className="r-button r-danger" disabled={!meant || erasing}>
          {erasing ? "Erasing…" : "Erase everything"}
        </button>
      </form>
      {problem && (
        <p className="r-problem" role="alert">
          {problem}
        </p>
      )}
      <div role="status">{erased && <Erased facts={erased} />}</div>
    </section>
  );
}

const counted = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`;

function Erased({ facts }: { facts: DeletedMe }) {
  const { conversations, completions, feedback, learned, restarted } = facts;
  const of = [counted(conversations, "conversation"), counted(completions, "answer"), counted(feedback, "judgement")];
  const { rounds, policies } = learned;
  return (
    <>
      <p>Erased: {of.join(", ")}.</p>
      {policies.length > 0 ? (
        <p>
          {policies.join(", ")} had learned from it
          {rounds.length > 0 && ` in ${rounds.length === 1 ? "round" : "rounds"} ${rounds.join(", ")}`}. Later rounds do
          without it.
        </p>
      ) : rounds.length > 0 ? (
        <p>Round {rounds.join(", ")}, under way, learns from it. Later rounds do without it.</p>
      ) : (
        <p>No policy had learned from it.</p>
      )}
      {restarted.length > 0 && <p>{collectAgain(restarted)}</p>}
    </>
  );
}
