import { useDraggable } from "@dnd-kit/core";
import type { ReactNode } from "react";
import { groupsOf, type Move, type Ranking } from "./ranking";
import { letterOf, whereabouts } from "./ranking_words";

export type Control = "handle" | "choice";

interface Props {
  id: string;
  ranking: Ranking;
  focused: boolean;
  locked: boolean;
  folded: boolean;
  policy: string | null;
  helpId: string;
  text: ReactNode;
  onFocus: (id: string) => void;
  onFold: (id: string) => void;
  /** From which control, which keeps the focus although the row goes elsewhere. */
  onMove: (move: Move, from: Control) => void;
}

/** One answer: a handle that takes the keys and the pointer, a place to choose without dragging, and the full text. */
export function RankRow(props: Props) {
  const { id, ranking, focused, locked, folded, policy, helpId, text, onFocus, onFold } = props;
  const { setNodeRef, setActivatorNodeRef, listeners, transform, isDragging } = useDraggable({ id, disabled: locked });
  const lifted = ranking.lifted?.id === id;
  const name = `Answer ${letterOf(ranking, id)}`;
  const shift = transform ? { transform: `translate3d(${transform.x}px, ${transform.y}px, 0)` } : undefined;
  return (
    <article
      ref={setNodeRef}
      aria-label={name}
      className={`r-answer${lifted || isDragging ? " r-lifted" : ""}${isDragging ? " r-carried" : ""}`}
      style={shift}
    >
      <header className="r-row">
        <button
          ref={setActivatorNodeRef}
          type="button"
          data-control="handle"
          data-handle={id}
          className="r-handle"
          tabIndex={focused ? 0 : -1}
          aria-label={`${name}, ${whereabouts(ranking, id)}${lifted ? ", lifted" : ""}`}
          aria-describedby={helpId}
          aria-pressed={lifted}
          {...listeners}
          onFocus={() => onFocus(id)}
        >
          <span aria-hidden="true">⠿</span> {name}
        </button>
        <PlaceChoice {...props} name={name} />
        {policy && <span className="r-policy">{policy}</span>}
        <button
          type="button"
          className="r-link r-end"
          tabIndex={focused ? 0 : -1}
          aria-expanded={!folded}
          onClick={() => onFold(id)}
        >
          {folded ? "Show" : "Fold"}
        </button>
      </header>
      {!folded && text}
    </article>
  );
}

function PlaceChoice({ id, ranking, focused, locked, name, onFocus, onMove }: Props & { name: string }) {
  const place = groupsOf(ranking).findIndex((group) => group.includes(id)) + 1;
  const choose = (value: number) => onMove(value ? { do: "place", id, place: value } : { do: "shelve", id }, "choice");
  return (
    <select
      aria-label={`Place of ${name}`}
      data-control="choice"
      className="r-select"
      tabIndex={focused ? 0 : -1}
      disabled={locked}
      value={ranking.places[id] ?? place}
      onFocus={() => onFocus(id)}
      onChange={(event) => choose(Number(event.target.value))}
    >
      <option value={0}>not ranked</option>
      {ranking.candidates.map((_, index) => (
        <option key={index} value={index + 1}>
          place {index + 1}
        </option>
      ))}
    </select>
  );
}
