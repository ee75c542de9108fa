import { policies, type Curves as Kept, type PolicyFacts, type PolicyList } from "../../api/policies";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { Badge } from "../parts/Badge";
import { Figure, Figures } from "../parts/Figure";
import { Loaded } from "../parts/Loaded";
import { usePolled } from "../parts/usePolled";
import { When } from "../parts/When";
import { percent, ranged } from "../parts/words";
import { Curves, type Curve } from "../rounds/Curves";
import { GateChecks } from "../rounds/GateChecks";
import { PPO_FURTHER, PPO_MAIN, type PpoFigure } from "../rounds/ppo";
import { Compare } from "./Compare";
import { Lineage } from "./Lineage";
import { PolicyOrders } from "./PolicyOrders";
import { Settings } from "./Settings";
import { usePolicies } from "./usePolicies";
import { marksOf, toneOf } from "./words";

const EVERY_MS = 30_000;

export function PolicyPage({ version }: { version: number }) {
  const list = usePolicies();
  const polled = usePolled((signal) => policies.get(version, signal), EVERY_MS, String(version));
  const refresh = () => void Promise.all([list.refresh(), polled.refresh()]);
  return (
    <>
      <p className="small">
        <Link to={consolePath("policies")}>All versions</Link>
      </p>
      <Loaded polled={list}>
        {(known) => (
          <Loaded polled={polled}>{(policy) => <Whole policy={policy} list={known} onDone={refresh} />}</Loaded>
        )}
      </Loaded>
    </>
  );
}

function Whole({ policy, list, onDone }: { policy: PolicyFacts; list: PolicyList; onDone: () => void }) {
  const { version, broken, gate, curves, judgements, config, reward_fit } = policy;
  const others = list.data.map((each) => each.version);
  return (
    <>
      <Heading policy={policy} list={list} />
      {broken !== undefined && <p className="c-problem">{broken}</p>}
      <PolicyOrders policy={policy} list={list} onDone={onDone} />
      <section>
        <h2>Lineage</h2>
        <Lineage policy={policy} />
      </section>
      <GateChecks metrics={{ checks: gate }} />
      <Trained judgements={judgements} fit={reward_fit} />
      {curves && (
        <section>
          <h2>Training</h2>
          <Training curves={curves} />
        </section>
      )}
      {others.length > 1 && (
        <Compare versions={others} at={[policy.parent ?? others.find((each) => each !== version)!, version]} />
      )}
      <Settings name="Configuration it was trained with" tree={config} />
    </>
  );
}

function Heading({ policy, list }: { policy: PolicyFacts; list: PolicyList }) {
  return (
    <header className="c-heading">
      <h2 className="c-row">
        {policy.id} <Badge tone={toneOf(policy.state)}>{policy.state.replace("_", " ")}</Badge>
        {marksOf(policy, list).map((mark) => (
          <Badge key={mark}>{mark}</Badge>
        ))}
      </h2>
      {policy.state === "canary" && (
        <p>
          <Link to={consolePath("releases", "current")}>Its release</Link> is open.
        </p>
      )}
      <p className="muted small">
        {policy.kind === "base" ? "The base model" : "Trained"}
        {policy.created !== undefined && (
          <>
            , made <When time={policy.created} />
          </>
        )}
        {policy.base_model && `, on ${policy.base_model}`}.
      </p>
    </header>
  );
}

const COUNTED: Record<string, string> = {
  all: "Judgements",
  rankings: "Rankings and comparisons",
  ratings: "Ratings",
  demonstrations: "Demonstrations",
  raters: "People whose words it learned from",
  live: "Answers to people that PPO used",
};

type Trains = Pick<PolicyFacts, "judgements"> & { fit: PolicyFacts["reward_fit"] };

/** What people said that it learned from, and how well the reward model understood them. */
function Trained({ judgements, fit }: Trains) {
  const counts = Object.entries(judgements).filter(([, count]) => count > 0);
  if (counts.length === 0 && fit === null) return null;
  return (
    <section>
      <h2>Learned from</h2>
      <Figures>
        {counts.map(([kind, count]) => (
          <Figure key={kind} name={COUNTED[kind] ?? kind} value={count.toLocaleString("en")} />
        ))}
        {fit && (
          <>
            <Figure
              name="Reward model’s accuracy"
              value={percent(fit.accuracy.mean)}
              note={`${ranged(fit.accuracy, percent)}, on ${fit.pairs} pairs it never saw`}
            />
            <Figure
              name="Its calibration error"
              value={percent(fit.ece.mean)}
              note={<Link to={consolePath("reward-model")}>Reliability</Link>}
            />
          </>
        )}
      </Figures>
    </section>
  );
}

const Training = ({ curves }: { curves: Kept }) => (
  <Curves main={PPO_MAIN.map((each) => drawn(each, curves))} further={PPO_FURTHER.map((each) => drawn(each, curves))} />
);

const drawn = ({ name, title, unit, meaning }: PpoFigure, { iterations, [name]: values }: Kept): Curve => ({
  title,
  unit,
  ...(meaning && { meaning }),
  along: "iteration",
  points: values ? iterations.map((x, at) => ({ x, y: values[at]! })) : [],
});
