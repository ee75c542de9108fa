import { duration } from "../../api/client";
import type { EngineFacts, Status, Swap, Traffic } from "../../api/status";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { Badge } from "../parts/Badge";
import { Cause } from "../parts/Cause";
import { Figure, Figures } from "../parts/Figure";
import { When } from "../parts/When";
import { ResetSelfTest } from "../releases/ResetSelfTest";
import { bytes, figure, taken } from "../parts/words";

/** What answers and how busy it is, what keeps what is said, and who trains. */
export function Health({ facts }: { facts: Status }) {
  const { traffic, ledger, workers, engines, self_test, reasons } = facts;
  return (
    <section aria-labelledby="health">
      <h2 id="health">Health</h2>
      <Figures>
        {engines.map((engine) => (
          <Engine key={engine.arm} engine={engine} />
        ))}
        <Chats traffic={traffic} />
        <Figure
          name="first token"
          value={traffic.first_token_s === null ? "none yet" : taken(traffic.first_token_s)}
          note="median since the start"
        />
        {facts.last_swap && <LastSwap swap={facts.last_swap} />}
        {reasons.last_swap && <Figure name="last swap" value={null} note={<Cause reason={reasons.last_swap} />} />}
        <Figure
          name="ledger"
          value={
            ledger.writable === null ? null : (
              <Badge tone={ledger.writable ? "good" : "bad"}>{ledger.writable ? "keeps everything" : "cannot write"}</Badge>
            )
          }
          note={because(ledger.reason) ?? (ledger.memory_bytes === null ? null : `${bytes(ledger.memory_bytes)} of memory`)}
        />
        <Figure name="answers kept" value={count(ledger.completions)} />
        <Figure name="judgements kept" value={count(ledger.judgements)} />
        <Figure
          name="workers"
          value={
            workers.alive === null ? null : (
              <Badge tone={workers.alive > 0 ? "good" : "bad"}>{workers.alive > 0 ? "alive" : "none"}</Badge>
            )
          }
          note={because(workers.reason) ?? queue(workers)}
        />
        <Figure
          name="votes' self-test"
          value={self_test && <Tested test={self_test} />}
          note={self_test ? <Said test={self_test} /> : because(reasons.self_test)}
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
      note={because(reason)}
    />
  );
}

function Chats({ traffic: { in_flight, places, waiting, streams_open, refused } }: { traffic: Traffic }) {
  const others = `${figure(streams_open)} streamed, ${figure(waiting)} waiting; ${figure(refused)} refused since the start`;
  return (
    <Figure
      name="chats under way"
      value={
        <>
          {figure(in_flight)} of {figure(places)} {in_flight >= places && <Badge tone="bad">full</Badge>}
        </>
      }
      note={others}
    />
  );
}

function LastSwap({ swap: { from_version, to_version, ok, reason, held_s, time } }: { swap: Swap }) {
  const first = from_version === null;
  const stood = `answers stood still for ${taken(held_s)}`;
  return (
    <Figure
      name={first ? "started with" : "last swap"}
      value={
        <>
          policy-v{to_version} {!ok && <Badge tone="bad">failed</Badge>}
        </>
      }
      note={
        <>
          <When time={time} />, {ok ? (first ? "the first since the gateway started" : stood) : <Cause reason={reason} />}
        </>
      }
    />
  );
}

/** Without votes it is silent, which is not to say that all is well. */
function Tested({ test: { alarm, votes } }: { test: NonNullable<Status["self_test"]> }) {
  if (alarm) return <Badge tone="bad">alarm</Badge>;
  return votes === 0 ? <Badge>no votes yet</Badge> : <Badge tone="good">quiet</Badge>;
}

const Said = ({ test: { says, alarm } }: { test: NonNullable<Status["self_test"]> }) => (
  <>
    {says}
    {alarm && (
      <div className="c-row">
        <ResetSelfTest />
      </div>
    )}
  </>
);

const because = (reason: string | null | undefined) => (reason ? <Cause reason={reason} /> : null);

const count = (value: number | null) => (value === null ? null : figure(value));

function queue({ queued, oldest_wait_s }: Status["workers"]): string | null {
  if (oldest_wait_s !== null) return `the open round has waited for ${duration(oldest_wait_s)}`;
  if (queued === null) return null;
  return queued === 0 ? "nothing waits" : `${figure(queued)} in the queue`;
}
