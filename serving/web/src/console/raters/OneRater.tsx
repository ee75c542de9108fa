import type { RaterRow } from "../../api/oversight";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import { CopyButton } from "../../chat/CopyButton";
import { searchOf } from "../feedback/chosen";
import { Judgements } from "../feedback/Judgements";
import { Why } from "../feedback/Review";
import { Badge } from "../parts/Badge";
import { Figure, Figures } from "../parts/Figure";
import { Move } from "./Move";
import { decoys, evidence, reliability, repeats, share, side, sideRange, SOURCES, SPLITS } from "./words";

interface OneRaterProps {
  id: string;
  rows: readonly RaterRow[];
  onDone: () => void;
}

/** All that is known of one rater, and what they said last. */
export function OneRater({ id, rows, onDone }: OneRaterProps) {
  const row = rows.find(({ rater }) => rater === id);
  return (
    <>
      <p>
        <Link to={consolePath("raters")}>All raters</Link>
      </p>
      <div className="c-row">
        <h2 className="p-code">{id}</h2>
        <CopyButton text={id} label="Copy the pseudonym" />
        {row?.quarantined && <Badge tone="bad">aside</Badge>}
        {row && row.suspected.length > 0 && !row.quarantined && <Badge tone="busy">suspected</Badge>}
        {row && (
          <span className="p-end">
            <Move row={row} onDone={onDone} />
          </span>
        )}
      </div>
      {row ? (
        <>
          <Why row={row} />
          <Known row={row} />
        </>
      ) : (
        <p className="muted">Nothing of theirs stands now, and they are not aside.</p>
      )}
      <section aria-label="Judgements">
        <div className="c-row">
          <h2>What they said</h2>
          <Link to={consolePath("feedback") + searchOf({ rater: id })}>Filter it</Link>
        </div>
        <Judgements label={`What ${id} said`} wanted={{ rater: id }} limit={20} ofOne />
      </section>
    </>
  );
}

const none = (words: string, instead: string) => words || <span className="p-none muted">{instead}</span>;

function Known({ row }: { row: RaterRow }) {
  const { judgements, source, split, agreement, capped, checks } = row;
  const notInRound = "not in the last round";
  const alone = row.reliability !== null && agreement === null;
  const counts = { side: checks.left + checks.right, gold: checks.passed + checks.failed, again: checks.same + checks.other };
  return (
    <Figures>
      <Figure name="Judgements that stand" value={judgements.toLocaleString("en")} note={SOURCES[source]} />
      <Figure name="Split" value={SPLITS[split]} />
      <Figure name="Agreement" value={none(share(agreement), alone ? "nobody judged the same" : notInRound)} note="with others on the same answers" />
      <Figure
        name="Reliability"
        value={none(reliability(row), notInRound)}
        note={alone ? `weighed as ${share(row.reliability)}` : "the weight that follows"}
      />
      <Figure
        name="Share"
        value={none(share(row.share), notInRound)}
        note={capped ? "capped: nobody teaches more" : "of what trains the reward model"}
      />
      <Figure
        name="Side"
        value={none(side(row), "no blind choice yet")}
        note={counts.side > 0 ? `${sideRange(row)}; chance chose the sides; ${evidence(checks.log_e_side)}` : null}
      />
      <Figure
        name="Decoys passed over"
        value={none(decoys(checks), "none shown yet")}
        note={counts.gold > 0 ? evidence(checks.log_e_careless) : null}
      />
      <Figure
        name="Same again"
        value={none(repeats(checks), "none came again yet")}
        note={counts.again > 0 ? evidence(checks.log_e_fickle) : null}
      />
    </Figures>
  );
}
