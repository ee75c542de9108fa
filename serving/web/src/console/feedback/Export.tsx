import { useId, useState } from "react";
import { exportUrl, FORMATS, type Wanted } from "../../api/oversight";

const WORDS: Record<(typeof FORMATS)[number], string> = {
  ratchet: "Ratchet, loses nothing",
  arena: "Arena battles",
  hh: "HH, chosen and rejected",
  kto: "KTO, thumbs",
  oasst: "OpenAssistant trees",
  openai_dpo: "OpenAI preference",
  sft: "Chats to fine-tune on",
  trl: "TRL preference",
};

/** Takes the judgements away as a file. Raters have other names in it, and what was not consented to is left out. */
export function Export({ wanted }: { wanted: Wanted }) {
  const [format, setFormat] = useState<string>("ratchet");
  const field = useId();
  const narrowed = wanted.split !== undefined || wanted.since !== undefined || wanted.until !== undefined;
  return (
    <div className="p-export">
      <label htmlFor={field}>
        Export as
        <select id={field} value={format} onChange={(event) => setFormat(event.target.value)}>
          {FORMATS.map((name) => (
            <option key={name} value={name}>
              {WORDS[name]}
            </option>
          ))}
        </select>
      </label>
      <a className="p-button" href={exportUrl(format, wanted)} download>
        Download
      </a>
      <p className="muted small">
        {narrowed ? "Of the split and days chosen" : "All that stands"}, where people consented; raters have other names
        in it.
      </p>
    </div>
  );
}
