import { memo, useEffect, useState, type ReactNode } from "react";
import { CopyButton } from "./CopyButton";

interface CodeBlockProps {
  code: string;
  language: string;
  /** Still being written: coloured when it is finished. */
  open: boolean;
}

export const CodeBlock = memo(function CodeBlock({ code, language, open }: CodeBlockProps) {
  const [colours, setColours] = useState<{ code: string; node: ReactNode } | null>(null);
  useEffect(() => {
    if (open || !language) return;
    let wanted = true;
    import("./highlight")
      .then(({ coloured }) => {
        if (wanted) setColours({ code, node: coloured(code, language.toLowerCase()) });
      })
      .catch(() => undefined); // without colours
    return () => {
      wanted = false;
    };
  }, [code, language, open]);

  return (
    <figure className="code">
      <figcaption>
        <span>{language || "code"}</span>
        <CopyButton text={code} label="Copy code" />
      </figcaption>
      {/* Wide code scrolls, so it must be reached by keyboard. */}
      <pre tabIndex={0} role="region" aria-label={`${language} code`}>
        <code>{colours?.code === code ? colours.node : code}</code>
      </pre>
    </figure>
  );
});
