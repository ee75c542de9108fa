import { useEffect, useRef } from "react";
import type { Shown } from "../../app/secrets";
import { CopyButton } from "../../chat/CopyButton";
import "../people.css";

interface SecretProps {
  shown: Shown;
  onKept: () => void;
}

/** What is told this once: it stays until whoever made it says that they have it, so no stray key loses it. */
export function Secret({ shown: { what, name, text }, onKept }: SecretProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <section className="p-secret" aria-label={`The ${what} of ${name}`}>
      <h2 ref={heading} tabIndex={-1}>
        The {what} of {name}
      </h2>
      <div className="c-row">
        <code>{text}</code>
        <CopyButton text={text} label={`Copy the ${what}`} />
      </div>
      <p>
        {what === "key"
          ? "It is shown here and never again: only its digest is kept. Whoever has it is who it names."
          : "It is shown here and never again. It works once, for whoever opens it first: send it to them alone."}
      </p>
      <div>
        <button type="button" className="primary" onClick={onKept}>
          I have it
        </button>
      </div>
    </section>
  );
}
