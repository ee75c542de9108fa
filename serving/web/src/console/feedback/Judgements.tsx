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
}

/** Newest first; each opens into the whole where it stands, so that one reads on from there. */
export function Judgements({ label, wanted, limit = 50 }: JudgementsProps) {
  const pages = usePages<Overseen>(
    async (after) => {
      const page = await judgements.page(wanted, after, limit);
      return { items: page.data, next: page.has_more ? page.last_id : null };
    },
    JSON.stringify(wanted),
  );
  return (
    <Paged pages={pages} empty="No judgement is like this.">
      {(items) => (
        <ul className="c-judgements" aria-label={label}>
          {items.map((each) => (
            <Row key={each.id} judgement={each} />
          ))}
        </ul>
      )}
    </Paged>
  );
}

function Row({ judgement }: { judgement: Overseen }) {
  const [open, setOpen] = useState(false);
  const body = useId();
  const said = detailsOf(judgement).join(" · ");
  return (
    <li className={open ? "c-open" : undefined}>
      <button
        type="button"
        className="c-judgement"
        aria-expanded={open}
        aria-controls={open ? body : undefined}
        onClick={() => setOpen(!open)}
      >
        <span className="c-title">
          <strong>{titleOf(judgement)}</strong>
          <Marks judgement={judgement} />
        </span>
        <span className="c-when muted small">
          <When time={judgement.created} />
        </span>
        {said && !open && <span className="c-said small">{said}</span>}
        <span className="c-of muted small">{factsOf(judgement)}</span>
      </button>
      {open && (
        <div id={body}>
          <Whole id={judgement.id} />
        </div>
      )}
    </li>
  );
}

export function Marks({ judgement }: { judgement: Overseen }) {
  return (
    <>
      {judgement.quarantined && <Badge tone="bad">rater aside</Badge>}
      {judgement.split === "eval" && <Badge>decides releases</Badge>}
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

function factsOf({ rater, policy_versions, learned }: Overseen): string {
  const versions = policy_versions?.map((version) => `policy-v${version}`) ?? ["compared blind"];
  const taught = learned.length > 0 ? [`taught ${learned.join(", ")}`] : [];
  return [shortRater(rater), versions.join(", "), ...taught].filter(Boolean).join(" · ");
}
