import { useEffect, useRef } from "react";

/** Whoever leaves an editor is asked, if something would be lost. */
export function Discard({ onDiscard, onStay }: { onDiscard: () => void; onStay: () => void }) {
  const keep = useRef<HTMLButtonElement>(null);
  useEffect(() => keep.current?.focus(), []);
  return (
    <div role="alertdialog" aria-label="Discard your changes?" className="r-ask">
      <span>Your changes are not saved.</span>
      <button ref={keep} type="button" className="r-button" onClick={onStay}>
        Go on editing
      </button>
      <button type="button" className="r-button r-danger" onClick={onDiscard}>
        Discard
      </button>
    </div>
  );
}
