import { me } from "../../api/client";
import { invites, keys } from "../../api/oversight";
import type { ViewProps } from "../Console";
import "../people.css";
import { InviteTable } from "../keys/InviteTable";
import { KeyTable } from "../keys/KeyTable";
import { NewInvite } from "../keys/NewInvite";
import { NewKey } from "../keys/NewKey";
import { Loaded } from "../parts/Loaded";
import { usePolled } from "../parts/usePolled";

const EVERY_MS = 30_000;

/** Who may use the service: their keys, and the links that nobody has used yet. */
export function Keys({ session }: ViewProps) {
  const ring = usePolled(keys.list, EVERY_MS);
  const opened = usePolled(invites.list, EVERY_MS);
  const own = usePolled(() => me.get().then(({ id }) => id), null, session.name);
  return (
    <>
      <section aria-labelledby="c-invites">
        <h2 id="c-invites">Invites</h2>
        <p className="muted small">
          A link by which one person signs in to the page, once; they have a key of that role from then on.
        </p>
        <NewInvite onDone={() => void opened.refresh()} />
        <Loaded polled={opened}>
          {(rows) => <InviteTable rows={rows} onDone={() => void opened.refresh()} />}
        </Loaded>
      </section>
      <section aria-labelledby="c-keys">
        <h2 id="c-keys">Keys</h2>
        <NewKey onDone={() => void ring.refresh()} />
        <Loaded polled={ring}>
          {(rows) => (
            <KeyTable rows={rows} own={own.value} onDone={() => void ring.refresh()} />
          )}
        </Loaded>
      </section>
    </>
  );
}
