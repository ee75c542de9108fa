import { session } from "../../api/client";
import { type Key, keys } from "../../api/oversight";
import { makingSecret, showSecret, signedInAnew } from "../../app/secrets";
import { Act } from "../parts/Act";
import { Badge } from "../parts/Badge";
import { type Column, Table } from "../parts/Table";
import { When } from "../parts/When";
import { SetLimits } from "./SetLimits";
import { limitsIn, usedToday } from "./limits";

interface KeyTableProps {
  rows: readonly Key[];
  /** The key of whoever looks. */
  own: string | undefined;
  onDone: () => void;
}

export function KeyTable({ rows, own, onDone }: KeyTableProps) {
  const columns: Column<Key>[] = [
    { name: "Name", cell: (key) => <Named row={key} isOwn={key.id === own} /> },
    { name: "Role", cell: ({ role }) => role },
    { name: "Made", cell: (key) => <Made row={key} /> },
    { name: "Expires", cell: ({ expires }) => (expires === null ? "never" : <When time={expires} />) },
    { name: "Limits", cell: (key) => <Bounds row={key} isOwn={key.id === own} onDone={onDone} /> },
    {
      name: "Act",
      cell: (key) => (
        <span className="p-acts">
          <Rotate row={key} isOwn={key.id === own} onDone={onDone} />
          <Revoke row={key} isOwn={key.id === own} onDone={onDone} />
        </span>
      ),
    },
  ];
  return <Table label="Keys" columns={columns} rows={rows} id={({ id }) => id} empty="There is no key." />;
}

interface OneKey {
  row: Key;
  isOwn: boolean;
}

function Named({ row: { name, id, expires }, isOwn }: OneKey) {
  const over = expires !== null && expires <= Date.now() / 1000;
  return (
    <span className="p-named" title={id}>
      {name} {isOwn && <Badge tone="good">yours</Badge>} {over && <Badge tone="bad">expired</Badge>}
    </span>
  );
}

function Made({ row: { created, last_rotated } }: Pick<OneKey, "row">) {
  return (
    <>
      <When time={created} />
      {last_rotated !== null && (
        <div className="muted small">
          rotated <When time={last_rotated} />
        </div>
      )}
    </>
  );
}

interface Done extends OneKey {
  onDone: () => void;
}

/** A key without limits is not counted. */
function Bounds({ row, ...done }: Done) {
  const limits = limitsIn(row);
  return (
    <div className="p-bounds">
      <div>
        {limits.length === 0 ? "none" : limits.map((words) => <div key={words}>{words}</div>)}
        {row.usage && <span className="muted small">today {usedToday(row.usage)}</span>}
      </div>
      <SetLimits row={row} {...done} />
    </div>
  );
}

function Rotate({ row, isOwn, onDone }: Done) {
  return (
    <Act
      of={row.id}
      name="Rotate"
      title={`Rotate the key of ${row.name}?`}
      reason="none"
      act={() => makingSecret(() => rotate(row.id, isOwn))}
      onDone={onDone}
    >
      <p>
        It gets a new text, which is shown once. The old one is useless at once, and browsers signed in by it are signed
        out. Name, role, limits and all that was said by it stay.
      </p>
      {isOwn && <p>It is your own: this browser stays signed in, others have to sign in again.</p>}
    </Act>
  );
}

async function rotate(id: string, isOwn: boolean): Promise<void> {
  const { name, key } = await keys.rotate(id);
  showSecret({ what: "key", id, name, text: key });
  // The session ended with the old text. Should this fail, whoever reads the new one signs in by it themselves.
  if (isOwn) await session.withKey(key).then(signedInAnew, () => undefined);
}

function Revoke({ row, isOwn, onDone }: Done) {
  return (
    <Act
      of={row.id}
      name="Revoke"
      title={`Revoke the key of ${row.name}?`}
      reason="none"
      danger
      act={() => keys.revoke(row.id)}
      onDone={onDone}
    >
      <p>Nobody can use it from now on, and it cannot be brought back. What was said by it stays.</p>
      {isOwn && <Own />}
    </Act>
  );
}

const Own = () => <p className="failure">It is the key by which you are signed in: you will be signed out.</p>;
