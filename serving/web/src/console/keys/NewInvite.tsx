import { useState, type FormEvent } from "react";
import type { Role } from "../../api/client";
import { invites } from "../../api/oversight";
import { makingSecret, showSecret } from "../../app/secrets";
import { Choice } from "../parts/Choice";
import { outcome } from "../parts/outcome";
import { DAYS, endOf, ROLES, Text } from "./fields";
import { useMaking } from "./useMaking";

interface NewInviteProps {
  /** It is made, or may have been and its text is lost: what is shown is out of date. */
  onDone: () => void;
}

export function NewInvite({ onDone }: NewInviteProps) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("user");
  const [days, setDays] = useState("7");
  const { making, problem, make } = useMaking(onDone);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const done = await make(async () => {
      const wish = { name: name.trim(), role: role as Role, url: location.origin, ...endOf(days) };
      await makingSecret(async () => {
        const made = await invites.create(wish);
        showSecret({ what: "link", id: made.id, name: made.name, text: made.link });
      });
      onDone();
    });
    if (done) setName("");
  };
  return (
    <form className="p-fields" aria-label="New invite" onSubmit={(event) => void submit(event)}>
      <Text label="Whom it is for" value={name} onChange={setName} />
      <Choice label="Role" value={role} onChange={setRole} options={ROLES} />
      <Choice label="The link ends" value={days} onChange={setDays} options={DAYS.slice(0, 3)} />
      <button type="submit" disabled={making || !name.trim()}>
        {making ? "Inviting…" : "Invite"}
      </button>
      {problem !== null && (
        <p className="failure p-whole-line" role="alert">
          {outcome(problem)}
        </p>
      )}
    </form>
  );
}
