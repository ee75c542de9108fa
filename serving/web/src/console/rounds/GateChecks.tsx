import type { GateCheck } from "../../api/policies";
import { Badge } from "../parts/Badge";
import { Table, type Column } from "../parts/Table";
import { measured } from "../parts/words";

const NOT_FINITE = "weights that are not finite";

const shown = (name: string, value: number | null) =>
  value === null ? "no number" : name === NOT_FINITE && value === 0 ? "none" : measured(name, value);

const SIGNS: Record<string, string> = { "<=": "at most", ">=": "at least", ">": "above" };

/** What must hold, in words; of weights that are not finite there may be none. */
function bound({ name, sign, threshold }: GateCheck): string {
  if (name === NOT_FINITE) return shown(name, threshold);
  return `${SIGNS[sign] ?? sign} ${shown(name, threshold)}`;
}

const COLUMNS: Column<GateCheck>[] = [
  { name: "check", cell: ({ name }) => name },
  {
    name: "verdict",
    cell: ({ passed }) => <Badge tone={passed ? "good" : "bad"}>{passed ? "passed" : "failed"}</Badge>,
  },
  { name: "value", cell: ({ name, value }) => shown(name, value), numeric: true },
  { name: "must be", cell: bound, numeric: true },
];

/** All that the gate asked of the candidate; nothing where it was not reached. */
export function GateChecks({ metrics }: { metrics: Record<string, unknown> | undefined }) {
  const checks = metrics?.["checks"] as GateCheck[] | undefined;
  if (!checks?.length) return null;
  return (
    <section aria-label="Gate">
      <h2>Gate</h2>
      <Table label="Gate checks" columns={COLUMNS} rows={checks} id={({ name }) => name} empty="" />
    </section>
  );
}
