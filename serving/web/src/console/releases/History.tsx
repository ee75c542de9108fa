import type { ReleaseLine } from "../../api/releases";
import { Table, type Column } from "../parts/Table";
import { When } from "../parts/When";

/** Newest first: what became of it, by whose hand, and why. */
export const History = ({ lines }: { lines: ReleaseLine[] }) => (
  <Table
    label="History, newest first"
    columns={COLUMNS}
    rows={[...lines].reverse()}
    id={({ revision }) => revision}
    empty="Nothing yet."
  />
);

const COLUMNS: Column<ReleaseLine>[] = [
  { name: "Became", cell: ({ is }) => is },
  { name: "When", cell: ({ time }) => <When time={time} /> },
  { name: "By", cell: ({ actor }) => actor },
  { name: "Why", cell: ({ reason, is }) => (reason === is ? "" : reason.replace(`: ${is}`, "")) },
];
