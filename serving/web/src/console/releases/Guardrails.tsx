import type { Guardrail, Release } from "../../api/releases";
import { Badge, type Tone } from "../parts/Badge";
import { Table, type Column } from "../parts/Table";
import { atAllTimes, guardrailFigure, guardrailFound, guardrailName, guardrailRange } from "./words";

const TONES: Record<Guardrail["verdict"], Tone> = { ok: "good", breached: "bad", unknown: "plain" };
const VERDICTS: Record<Guardrail["verdict"], string> = { ok: "ok", breached: "breached", unknown: "not decided yet" };

/** Whatever the votes say, a breached one rolls back. */
export const Guardrails = ({ release: { guardrails, plan, open } }: { release: Release }) => (
  <Table
    label="Guardrails"
    columns={columns(plan.limits.alpha, open)}
    rows={guardrails}
    id={({ name }) => name}
    empty="None measured yet."
  />
);

const columns = (alpha: number, open: boolean): Column<Guardrail>[] => [
  { name: "Guardrail", cell: ({ name }) => guardrailName(name) },
  { name: "Verdict", cell: ({ verdict }) => <Badge tone={TONES[verdict]}>{open || verdict !== "unknown" ? VERDICTS[verdict] : "never decided"}</Badge> },
  { name: "Found", numeric: true, cell: guardrailFound },
  { name: `Interval, ${atAllTimes(alpha)}`, numeric: true, cell: guardrailRange },
  { name: "At most", numeric: true, cell: (each) => guardrailFigure(each, each.limit) },
  {
    name: "Conversations, beside stable’s",
    numeric: true,
    cell: ({ units }) => `${units.candidate.toLocaleString("en")} beside ${units.stable.toLocaleString("en")}`,
  },
];
