import { useId, useState } from "react";
import type { Overseen } from "../../api/oversight";
import { judgements, type Wanted } from "../../api/oversight";
import { detailsOf, titleOf } from "../../rating/said_words";
import { Badge } from "../parts/Badge";
import { Paged } from "../parts/Paged";
import { shortRater } from "../parts/Rater";
import { usePages } from "../parts/usePages";
import { When } from "../parts/When";
import { Whole } from "./Whole";

interface JudgementsProps {
  label: string;
  wanted: Wanted;
  /** So many at a time. */
  limit?: number;
  /** All by one rater, who is named above. */
  ofOne?: boolean;
}

/** Newest first; each opens into the whole where it stands, so that one reads on from there. */
export function Judgements({ label, wanted, limit = 50, ofOne = false }: JudgementsProps) {
  const pages = usePages<Overseen>(
    async (after, signal) => {
      const page = await judgements.page(wanted, after, limit, signal);
      return { items: page.data, next: page.has_more ? page.last_id : null };
    },
    JSON.stringify(wanted),
  );
  return (
    <Paged pages={pages} empty="No judgement is like this.">
      {(items) => (
        <ul className="p-judgements" aria-label={label}>
          {items.map((each) => (
            <Row key={each.id} judgement={each} ofOne={ofOne} />
          ))}
        </ul>
      )}
    </Paged>
  );
}

function Row({ judgement, ofOne }: { judgement: Overseen; ofOne: boolean }) {
  const [open, setOpen] = useState(false);
  const body = useId();
  const said = detailsOf(judgement).join(" · ");
  return (
    <li className={open ? "p-open" : undefined}>
      <button
        type="button"
        className="p-judgement"
        aria-expanded={open}
        aria-controls={open ? body : undefined}
        onClick={() => setOpen(!open)}
      >
        <span className="p-title">
          <strong>{titleOf(judgement)}</strong>
          <Marks judgement={judgement} ofOne={ofOne} />
        </span>
        <span className="c-when muted small">
          <When time={judgement.created} />
        </span>
        {said && !open && <span className="p-said small">{said}</span>}
        <span className="p-of muted small">{factsOf(judgement, ofOne)}</span>
      </button>
      {open && (
        <div id={body}>
          <Whole id={judgement.id} />
        </div>
      )}
    </li>
  );
}

function Marks({ judgement, ofOne }: { judgement: Overseen; ofOne: boolean }) {
  return (
    <>
      {judgement.quarantined && !ofOne && <Badge tone="bad">rater aside</Badge>}
      {judgement.split === "eval" && !ofOne && <Badge>decides releases</Badge>}
      {judgement.lane !== null && <Badge>{LANES[judgement.lane] ?? judgement.lane}</Badge>}
      {judgement.status !== "accepted" && <Badge tone="bad">{judgement.status}</Badge>}
    </>
  );
}

const LANES: Record<string, string> = {
  release: "in a release",
  aa: "one policy twice",
  gold: "with a decoy",
  repeat: "a pair again",
};

function factsOf({ rater, policy_versions, learned }: Overseen, ofOne: boolean): string {
  const versions = policy_versions?.map((version) => `policy-v${version}`) ?? ["compared blind"];
  const taught = learned.length > 0 ? [`taught ${learned.join(", ")}`] : [];
  return [ofOne ? "" : shortRater(rater), versions.join(", "), ...taught].filter(Boolean).join(" · ");
}
