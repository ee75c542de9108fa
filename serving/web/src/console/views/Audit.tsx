import { useState } from "react";
import { audit, type AuditLine } from "../../api/oversight";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";
import type { ViewProps } from "../Console";
import "../people.css";
import { Paged } from "../parts/Paged";
import { Rater } from "../parts/Rater";
import { type Column, Table } from "../parts/Table";
import { usePages } from "../parts/usePages";
import { When } from "../parts/When";

const KINDS: [AuditLine["kind"] | "", string][] = [
  ["", "Everything"],
  ["policy", "Policies"],
  ["release", "Releases"],
  ["rater", "Raters"],
  ["freeze", "Freezes"],
  ["key", "Keys"],
  ["round", "Rounds"],
];

/** Where what has a number of its own is seen. */
const VIEWS: { [kind in AuditLine["kind"]]?: string } = { policy: "policies", release: "releases", round: "rounds" };

const COLUMNS: Column<AuditLine>[] = [
  { name: "When", cell: ({ time }) => <When time={time} /> },
  { name: "What", cell: (line) => <What line={line} /> },
  { name: "Deed", cell: (line) => <Deed line={line} /> },
  { name: "By", cell: ({ actor }) => <span className="p-actor">{actor}</span> },
  { name: "Why", cell: ({ reason }) => reason && <span className="p-why">{reason}</span> },
];

const PAGE = 50;

/** Who changed what that others see, newest first. */
export function Audit(_: ViewProps) {
  const [kind, setKind] = useState<AuditLine["kind"] | "">("");
  const pages = usePages<AuditLine>(
    async (before, signal) => {
      const page = await audit.page(kind || undefined, before, PAGE, signal);
      return { items: page.data, next: page.has_more ? (page.data.at(-1)?.id ?? null) : null };
    },
    kind,
  );
  return (
    <>
      <div className="c-row">
        <div className="p-tabs" role="group" aria-label="Of what">
          {KINDS.map(([value, words]) => (
            <button key={value} type="button" aria-pressed={kind === value} onClick={() => setKind(value)}>
              {words}
            </button>
          ))}
        </div>
        <button type="button" className="p-end" onClick={() => void pages.refresh()}>
          Refresh
        </button>
      </div>
      <Paged pages={pages} empty="Nothing of this kind was done yet.">
        {(lines) => <Table label="Audit trail" columns={COLUMNS} rows={lines} id={({ id }) => id} empty="" />}
      </Paged>
    </>
  );
}

function Deed({ line: { kind, action, became: told } }: { line: AuditLine }) {
  const became = kind === "key" ? keyTold(told).rest : told;
  return (
    <>
      {action.replaceAll("_", " ")}
      {became && <div className="muted small">{became}</div>}
    </>
  );
}

function What({ line: { kind, what, became } }: { line: AuditLine }) {
  if (kind === "rater") return <Rater rater={what} />;
  if (kind === "key") return <OfKey id={what} name={keyTold(became).name} />;
  const number = /(\d+)$/.exec(what)?.[1];
  const view = VIEWS[kind];
  return view && number ? <Link to={consolePath(view, number)}>{what}</Link> : what;
}

/** People know a key by whose it is; the end of its id tells two of one name apart: it begins with when it was made. */
const OfKey = ({ id, name }: { id: string; name: string }) => (
  <span title={id}>
    {id.startsWith("inv") ? "invite" : "key"} of {name}
    <div className="p-code muted small">…{id.slice(-6)}</div>
  </span>
);

/** "ann, rater; given: role" in its parts: a name may hold anything, a role is one of four words. */
function keyTold(became: string | null): { name: string; rest: string } {
  const [, name, rest] = /^(.*), ((?:user|rater|operator|admin)(?:; given: .*)?)$/s.exec(became ?? "") ?? [];
  return { name: name ?? "nobody knows whom", rest: rest ?? became ?? "" };
}
