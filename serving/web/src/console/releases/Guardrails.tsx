import type { Guardrail } from "../../api/releases";
import { Badge, type Tone } from "../parts/Badge";
import { Table, type Column } from "../parts/Table";
import { guardrailFigure, guardrailName } from "./words";

const TONES: Record<Guardrail["verdict"], Tone> = { ok: "good", breached: "bad", unknown: "plain" };

/** Whatever the votes say, a breached one rolls back. */
export const Guardrails = ({ guardrails }: { guardrails: Guardrail[] }) => (
  <Table label="Guardrails" columns={COLUMNS} rows={guardrails} id={({ name }) => name} empty="None measured yet." />
);

const COLUMNS: Column<Guardrail>[] = [
  { name: "Guardrail", cell: ({ name }) => guardrailName(name) },
  { name: "Verdict", cell: ({ verdict }) => <Badge tone={TONES[verdict]}>{verdict === "unknown" ? "too few yet" : verdict}</Badge> },
  { name: "Found", cell: (each) => (each.value === null ? "–" : guardrailFigure(each, each.value)) },
  { name: "Interval", cell: ({ interval }) => interval && `${interval.low.toFixed(2)} to ${interval.high.toFixed(2)}` },
  { name: "At most", cell: (each) => guardrailFigure(each, each.limit) },
  { name: "Conversations", numeric: true, cell: ({ units }) => units.candidate.toLocaleString("en") },
  { name: "Stable’s", numeric: true, cell: ({ units }) => units.stable.toLocaleString("en") },
];
