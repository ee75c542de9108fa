import { useState, type FormEvent } from "react";
import type { Role } from "../../api/client";
import { keys } from "../../api/oversight";
import { makingSecret, showSecret } from "../../app/secrets";
import { Choice } from "../parts/Choice";
import { outcome } from "../parts/outcome";
import { Bounds, DAYS, endOf, ROLES, Text } from "./fields";
import { boundsOf, UNBOUND } from "./limits";
import { useMaking } from "./useMaking";

interface NewKeyProps {
  /** It is made, or may have been and its text is lost: what is shown is out of date. */
  onDone: () => void;
}

export function NewKey({ onDone }: NewKeyProps) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("user");
  const [days, setDays] = useState("");
  const [typed, setTyped] = useState(UNBOUND);
  const { making, problem, make } = useMaking(onDone);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const done = await make(async () => {
      const wish = { name: name.trim(), role: role as Role, ...endOf(days), limits: boundsOf(typed) };
      await makingSecret(async () => {
        const { id, name, key } = await keys.create(wish);
        showSecret({ what: "key", id, name, text: key });
      });
      onDone();
    });
    if (!done) return;
    setName("");
    setTyped(UNBOUND);
  };
  return (
    <form className="c-stack" aria-label="New key" onSubmit={(event) => void submit(event)}>
      <div className="p-fields">
        <Text label="Name" value={name} onChange={setName} />
        <Choice label="Role" value={role} onChange={setRole} options={ROLES} />
        <Choice label="Expires" value={days} onChange={setDays} options={[["", "never"], ...DAYS]} />
        <button type="submit" disabled={making || !name.trim()}>
          {making ? "Making…" : "Make a key"}
        </button>
      </div>
      <details>
        <summary className="muted small">Limits</summary>
        <Bounds typed={typed} onChange={setTyped} />
      </details>
      {problem !== null && (
        <p className="failure" role="alert">
          {outcome(problem)}
        </p>
      )}
    </form>
  );
}
