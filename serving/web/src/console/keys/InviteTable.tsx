import { type Invite, invites } from "../../api/oversight";
import { Act } from "../parts/Act";
import { type Column, Table } from "../parts/Table";
import { When } from "../parts/When";

interface InviteTableProps {
  rows: readonly Invite[];
  onDone: () => void;
}

export function InviteTable({ rows, onDone }: InviteTableProps) {
  const columns: Column<Invite>[] = [
    { name: "For", cell: ({ name, id }) => <span className="p-named" title={id}>{name}</span> },
    { name: "Role", cell: ({ role }) => role },
    { name: "Made", cell: ({ created }) => <When time={created} /> },
    { name: "Ends", cell: ({ expires }) => <When time={expires} /> },
    {
      name: "Act",
      cell: ({ id, name }) => (
        <Act
          of={id}
          name="Withdraw"
          title={`Withdraw the invite of ${name}?`}
          reason="none"
          danger
          act={() => invites.withdraw(id)}
          onDone={onDone}
        >
          <p>The link is useless from now on. Whoever opened it before stays.</p>
        </Act>
      ),
    },
  ];
  const empty = "No link is open: whoever has used one is among the keys.";
  return <Table label="Open invites" columns={columns} rows={rows} id={({ id }) => id} empty={empty} />;
}
