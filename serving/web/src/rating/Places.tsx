import { pointerWithin, useDndContext, useDroppable, type CollisionDetection } from "@dnd-kit/core";
import type { ReactNode } from "react";
import type { Spot } from "./ranking";

/** Where a dragged answer may be let go: between places, on a place, or on the shelf. */
export function spotOf(dropId: string): Spot | null {
  if (dropId === "shelf") return { at: "shelf" };
  const found = /^(gap|place):(\d+)$/.exec(dropId);
  return found ? { at: found[1] as "gap" | "place", index: Number(found[2]) } : null;
}

const NEAR_PX = 60;

/** Where the pointer is, or what is nearest to it: a hand that lets go a little beside a gap means it. */
export const beside: CollisionDetection = (drag) => {
  const within = pointerWithin(drag);
  const { pointerCoordinates: at, droppableRects, droppableContainers } = drag;
  if (within.length > 0 || !at) return within;
  const outside = (least: number, value: number, most: number) => Math.max(least - value, 0, value - most);
  return droppableContainers
    .flatMap((droppableContainer) => {
      const { id } = droppableContainer;
      const box = droppableRects.get(id);
      const value = box && Math.hypot(outside(box.left, at.x, box.right), outside(box.top, at.y, box.bottom));
      return value !== undefined && value <= NEAR_PX ? [{ id, data: { droppableContainer, value } }] : [];
    })
    .sort((one, other) => one.data.value - other.data.value);
};

interface Props {
  groups: string[][];
  shelf: string[];
  row: (id: string) => ReactNode;
}

/** The places, best first, with gaps between that open while something is dragged; below them the shelf. */
export function Places({ groups, shelf, row }: Props) {
  return (
    <>
      <Gap index={0} says={groups.length ? "Better than all" : "The best goes here"} empty={groups.length === 0} />
      {groups.length > 0 && (
        <ol className="r-places" aria-label="Ranked, best first">
          {groups.map((group, index) => (
            <li key={group.join()}>
              <Place index={index} tied={group.length > 1}>
                {group.map(row)}
              </Place>
              <Gap index={index + 1} says={`Worse than place ${index + 1}`} />
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

/** It says what it means while something is dragged, and before there is anything else to see of the places. */
function Gap({ index, says, empty = false }: { index: number; says: string; empty?: boolean }) {
  const { active } = useDndContext();
  const { setNodeRef, isOver } = useDroppable({ id: `gap:${index}` });
  const state = `${empty ? " r-empty" : ""}${active ? " r-dragging" : ""}${isOver ? " r-over" : ""}`;
  return (
    <div ref={setNodeRef} className={`r-gap${state}`} aria-hidden="true">
      {(active || empty) && says}
    </div>
  );
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
