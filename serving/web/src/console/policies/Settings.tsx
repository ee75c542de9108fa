import { Table } from "../parts/Table";
import { flat, told } from "./words";

/** What was fixed when something began, by name; it unfolds. */
export const Settings = ({ name, tree }: { name: string; tree: Record<string, unknown> }) => (
  <details className="c-stack">
    <summary>{name}</summary>
    <Table
      label={name}
      columns={[
        { name: "Name", cell: ([field]) => <code>{field}</code> },
        { name: "Value", cell: ([, value]) => told(value) },
      ]}
      rows={flat(tree)}
      id={([field]) => field}
      empty="None is known."
    />
  </details>
);
