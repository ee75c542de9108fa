import { duration } from "../../api/client";
import type { EngineFacts, Status } from "../../api/status";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { Badge } from "../parts/Badge";
import { Figure, Figures } from "../parts/Figure";
import { figure } from "../parts/Plot";
import { bytes } from "../parts/words";

/** What answers, what keeps what is said, and who trains. */
export function Health({ facts }: { facts: Status }) {
  const { ledger, workers, engines, self_test } = facts;
  return (
    <section aria-labelledby="health">
      <h2 id="health">Health</h2>
      <Figures>
        {engines.map((engine) => (
          <Engine key={engine.arm} engine={engine} />
        ))}
        <Figure
          name="ledger"
          value={
            ledger.writable === null ? null : (
              <Badge tone={ledger.writable ? "good" : "bad"}>{ledger.writable ? "keeps everything" : "cannot write"}</Badge>
            )
          }
          note={ledger.reason ?? (ledger.memory_bytes === null ? null : `${bytes(ledger.memory_bytes)} of memory`)}
        />
        <Figure name="answers kept" value={count(ledger.completions)} />
        <Figure name="judgements kept" value={count(ledger.judgements)} />
        <Figure
          name="workers"
          value={
            workers.alive === null ? null : (
              <Badge tone={workers.alive > 0 ? "good" : "bad"}>{workers.alive > 0 ? `${workers.alive} alive` : "none"}</Badge>
            )
          }
          note={workers.reason ?? queue(workers)}
        />
        <Figure
          name="votes' self-test"
          value={self_test && <Badge tone={self_test.alarm ? "bad" : "good"}>{self_test.alarm ? "alarm" : "quiet"}</Badge>}
          note={self_test?.alarm ? self_test.says : null}
        />
      </Figures>
    </section>
  );
}

function Engine({ engine: { arm, policy_version, reason } }: { engine: EngineFacts }) {
  return (
    <Figure
      name={`engine, ${arm}`}
      value={
        policy_version === null ? (
          <Badge tone="bad">does not serve</Badge>
        ) : (
          <Link to={consolePath("policies", policy_version)}>policy-v{policy_version}</Link>
        )
      }
      note={reason}
    />
  );
}

const count = (value: number | null) => (value === null ? null : figure(value));

function queue({ queued, oldest_wait_s }: Status["workers"]): string | null {
  if (queued === null) return null;
  if (queued === 0) return "nothing waits";
  return `${figure(queued)} waiting` + (oldest_wait_s === null ? "" : `, the first for ${duration(oldest_wait_s)}`);
}
