import type { ReactNode } from "react";
import type { Overseen, OverseenWhole } from "../../api/oversight";
import { judged, judgements, type Judged } from "../../api/oversight";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { Changes } from "../../rating/Changes";
import { detailsOf, titleOf } from "../../rating/said_words";
import { Loaded } from "../parts/Loaded";
import { Rater } from "../parts/Rater";
import { usePolled } from "../parts/usePolled";
import { When } from "../parts/When";
import { PolicyLink } from "../policies/PolicyLink";
import { standingOf, targetsOf } from "./standing";

/** A judgement with what it is about: all that people wrote is shown as they wrote it, as text. */
export function Whole({ id }: { id: string }) {
  const whole = usePolled((signal) => judgements.get(id, signal), null, id);
  return (
    <div className="p-whole">
      <Loaded polled={whole}>
        {(judgement) => (
          <>
            <About judgement={judgement} />
            <Said judgement={judgement} />
            <Facts judgement={judgement} />
            <Earlier history={judgement.history} />
          </>
        )}
      </Loaded>
    </div>
  );
}

/** What was asked and answered, as it was before whoever judged. */
function About({ judgement }: { judgement: OverseenWhole }) {
  const targets = targetsOf(judgement.judgement);
  const about = usePolled((signal) => judged(targets, signal), null, judgement.id);
  return (
    <Loaded polled={about}>
      {({ messages, answers }) => (
        <>
          {messages.length > 0 && <Asked messages={messages} />}
          {answers.length < targets.length && (
            <p className="muted small">
              {answers.length === 0 ? "What it is about" : "Some of what it is about"} is not there any more: whoever
              asked for it had it erased.
            </p>
          )}
          {answers.length > 0 && (
            <div className={answers.length > 1 ? "p-answers p-several" : "p-answers"}>
              {answers.map((answer) => (
                <Answer key={answer.id} judgement={judgement} answer={answer} />
              ))}
            </div>
          )}
        </>
      )}
    </Loaded>
  );
}

/** The last message is what was answered; what came before it is there to be opened. */
function Asked({ messages }: Pick<Judged, "messages">) {
  const before = messages.slice(0, -1);
  return (
    <section aria-label="Prompt" className="c-stack">
      {before.length > 0 && (
        <details>
          <summary className="muted small">
            {before.length === 1 ? "One message" : `${before.length} messages`} before it
          </summary>
          {before.map((message, at) => (
            <Told key={at} who={message.role} text={message.content ?? ""} />
          ))}
        </details>
      )}
      {messages.slice(-1).map((message, at) => (
        <Told key={at} who={message.role} text={message.content ?? ""} />
      ))}
    </section>
  );
}

function Told({ who, text }: { who: string; text: string }) {
  return (
    <div className="p-told">
      <h4>{WRITERS[who] ?? who}</h4>
      <Words label={WRITERS[who] ?? who}>{text}</Words>
    </div>
  );
}

const WRITERS: Record<string, string> = { user: "Asked", assistant: "Answered", system: "System" };

/** Long texts scroll in their own box, which the keyboard reaches. */
const Words = ({ label, children }: { label: string; children: ReactNode }) => (
  <div className="p-words" role="region" aria-label={label} tabIndex={0}>
    {children}
  </div>
);

interface AnswerProps {
  judgement: OverseenWhole;
  answer: Judged["answers"][number];
}

function Answer({ judgement, answer: { id, text } }: AnswerProps) {
  const { name, said, best } = standingOf(judgement.judgement, id);
  const { type, content } = judgement.judgement;
  return (
    <section className={best ? "p-answer p-best" : "p-answer"} aria-label={said ? `${name}: ${said}` : name}>
      <h4>
        {name}
        {said && <span className={best ? "p-standing" : "muted"}>{said}</span>}
        <span className="p-writer">
          <Writer version={judgement.written === null ? undefined : (judgement.written[id] ?? null)} />
        </span>
      </h4>
      {type === "demonstration" ? (
        <Changes before={text} after={String(content)} />
      ) : (
        <Words label={`${name} in full`}>{text || <span className="muted">Nothing.</span>}</Words>
      )}
    </section>
  );
}

/** Undefined while nobody is told. */
function Writer({ version }: { version: number | null | undefined }) {
  if (version === undefined) return <span className="muted">compared blind</span>;
  return version === null ? <span className="muted">no policy of ours</span> : <PolicyLink version={version} />;
}

/** The words and tags that came with it. */
function Said({ judgement }: { judgement: OverseenWhole }) {
  const { type, reasons, comment, content } = judgement.judgement as {
    type: string;
    reasons?: string[];
    comment?: string | null;
    content?: string;
  };
  const words = comment ?? (type === "comment" ? content : null);
  return (
    <>
      {reasons && reasons.length > 0 && (
        <p className="p-reasons">
          <span className="muted small">Because it is</span>
          {reasons.map((reason) => (
            <span key={reason} className="c-badge">
              {reason}
            </span>
          ))}
        </p>
      )}
      {words && (
        <div className="p-told">
          <h4>Comment</h4>
          <Words label="Comment">{words}</Words>
        </div>
      )}
      {type === "demonstration" && (
        <details>
          <summary className="muted small">The correction alone</summary>
          <Words label="Correction">{content}</Words>
        </details>
      )}
    </>
  );
}

function Facts({ judgement }: { judgement: OverseenWhole }) {
  const { rater, split, release, learned, created, circumstances } = judgement;
  const { shown_at, answered_at } = circumstances;
  const took = shown_at === null || answered_at === null ? null : answered_at - shown_at;
  const facts: [string, ReactNode][] = [
    ["By", <Rater key="rater" rater={rater} />],
    ["Said", <time dateTime={new Date(created * 1000).toISOString()}>{new Date(created * 1000).toLocaleString()}</time>],
    ["Its rater", split === "eval" ? "never trains, and decides releases" : "trains"],
    ["Taught", learned.length > 0 ? <Taught names={learned} /> : "no policy yet"],
    ...(took !== null && took >= 0 ? [["Took", `${Math.round(took)} s`] as [string, ReactNode]] : []),
    ...(release === null
      ? []
      : [["Release", <Link to={consolePath("releases", release)}>{release}</Link>] as [string, ReactNode]]),
    ["Id", <Link to={consolePath("feedback", judgement.id)} className="p-code">{judgement.id}</Link>],
  ];
  return (
    <dl className="p-facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function Taught({ names }: { names: string[] }) {
  return (
    <>
      {names.map((name, at) => (
        <span key={name}>
          {at > 0 && ", "}
          <Link to={consolePath("policies", name.replace("policy-v", ""))}>{name}</Link>
        </span>
      ))}
    </>
  );
}

/** What the same rater had said of the same before, newest first. */
function Earlier({ history }: { history: Overseen[] }) {
  if (history.length === 0) return null;
  return (
    <section aria-label="Earlier" className="p-told">
      <h4>Before that</h4>
      <ol className="p-earlier">
        {history.map((each) => (
          <li key={each.id}>
            <strong>{titleOf(each)}</strong>{" "}
            <span className="muted small">
              <When time={each.created} />, {each.status}
            </span>
            {detailsOf(each).map((line, at) => (
              <p key={at} className="small">
                {line}
              </p>
            ))}
          </li>
        ))}
      </ol>
    </section>
  );
}
