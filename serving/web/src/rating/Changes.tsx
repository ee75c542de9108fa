import { useMemo } from "react";
import { wordDiff, type Piece } from "./diff";

/** What changed between two texts, word by word; for screen readers said as well as marked. */
export function Changes({ before, after }: { before: string; after: string }) {
  const pieces = useMemo(() => wordDiff(before, after), [before, after]);
  return (
    <div role="group" aria-label="Changes" className="r-diff">
      {pieces.map((piece, index) => (
        <PieceShown key={index} piece={piece} />
      ))}
    </div>
  );
}

function PieceShown({ piece: { kind, text } }: { piece: Piece }) {
  if (kind === "same") return <span>{text}</span>;
  const Tag = kind === "added" ? "ins" : "del";
  return (
    <Tag>
      <span className="r-hidden">{kind === "added" ? "added: " : "removed: "}</span>
      {text}
    </Tag>
  );
}
