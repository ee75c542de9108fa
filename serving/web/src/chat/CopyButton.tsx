import { useEffect, useState } from "react";
import { CheckIcon, CopyIcon } from "../app/icons";

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [done, setDone] = useState<"copied" | "failed" | null>(null);
  useEffect(() => {
    if (!done) return;
    const timer = setTimeout(() => setDone(null), 1600);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = async () => setDone((await copied(text)) ? "copied" : "failed");
  const said = done === "copied" ? "Copied" : done === "failed" ? "Could not copy" : label;
  return (
    <button type="button" className="icon" onClick={copy} aria-label={said} title={said}>
      {done === "copied" ? <CheckIcon /> : <CopyIcon />}
      <span className="quiet" role="status">
        {done ? said : ""}
      </span>
    </button>
  );
}

/** On plain http beside loopback there is no clipboard API, only the old command. */
async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "quiet";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
