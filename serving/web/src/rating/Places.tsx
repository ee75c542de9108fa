import { useDndContext, useDroppable } from "@dnd-kit/core";
import type { ReactNode } from "react";
import type { Spot } from "./ranking";

/** Where a dragged answer may be let go: between places, on a place, or on the shelf. */
export function spotOf(dropId: string): Spot | null {
  if (dropId === "shelf") return { at: "shelf" };
  const found = /^(gap|place):(\d+)$/.exec(dropId);
  return found ? { at: found[1] as "gap" | "place", index: Number(found[2]) } : null;
}

interface Props {
  groups: string[][];
  shelf: string[];
  row: (id: string) => ReactNode;
}

/** The places, best first, with gaps between that open while something is dragged; below them the shelf. */
export function Places({ groups, shelf, row }: Props) {
  return (
    <>
      <Gap index={0} />
      {groups.length > 0 && (
        <ol className="r-places" aria-label="Ranked, best first">
          {groups.map((group, index) => (
            <li key={group.join()}>
              <Place index={index} tied={group.length > 1}>
                {group.map(row)}
              </Place>
              <Gap index={index + 1} />
            </li>
          ))}
        </ol>
      )}
      <Shelf empty={shelf.length === 0} ranked={groups.length > 0}>
        {shelf.map(row)}
      </Shelf>
    </>
  );
}

function Gap({ index }: { index: number }) {
  const { active } = useDndContext();
  const { setNodeRef, isOver } = useDroppable({ id: `gap:${index}` });
  const state = `${active ? " r-dragging" : ""}${isOver ? " r-over" : ""}`;
  return <div ref={setNodeRef} className={`r-gap${state}`} />;
}

function Place({ index, tied, children }: { index: number; tied: boolean; children: ReactNode }) {
  const { setNodeRef, isOver } = useDroppable({ id: `place:${index}` });
  return (
    <div ref={setNodeRef} className={`r-place${isOver ? " r-over" : ""}`}>
      <span className="r-number" aria-hidden="true">
        {index + 1}
        {tied && <small>tie</small>}
      </span>
      <div className="r-rows">{children}</div>
    </div>
  );
}

function Shelf({ empty, ranked, children }: { empty: boolean; ranked: boolean; children: ReactNode }) {
  const { setNodeRef, isOver } = useDroppable({ id: "shelf" });
  return (
    <div ref={setNodeRef} role="group" aria-label="Not ranked" className={`r-shelf${isOver ? " r-over" : ""}`}>
      <p className="r-muted">
        {empty ? "Everything is ranked." : "Not ranked"}
        {!empty && ranked && ": worse than all that are ranked, and not compared with each other."}
      </p>
      {children}
    </div>
  );
}
