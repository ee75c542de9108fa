import { useCallback, useEffect, useRef, useState, type RefObject } from "react";

/** Where the sidebar is a drawer over the rest, as app.css has it. */
const NARROW = "(max-width: 48rem)";
const isNarrow = (): boolean => matchMedia(NARROW).matches;

export interface Drawer {
  isOpen: boolean;
  open: () => void;
  close: () => void;
  /** The button that opens it. */
  opener: RefObject<HTMLButtonElement | null>;
  /** The button in it that closes it: whoever opens it is there first. */
  closer: RefObject<HTMLButtonElement | null>;
}

/** The sidebar where there is no room for it beside the rest, which waits behind it. */
export function useDrawer(): Drawer {
  const [isOpen, setOpen] = useState(false);
  const opener = useRef<HTMLButtonElement>(null);
  const closer = useRef<HTMLButtonElement>(null);
  const open = useCallback(() => setOpen(isNarrow()), []);
  const close = useCallback(() => setOpen(false), []);
  useEffect(() => {
    if (!isOpen) return;
    const before = document.activeElement;
    closer.current?.focus();
    // On the document: after a menu in it, and before what is behind it, where Esc stops an answer.
    const pressed = (event: KeyboardEvent) => {
      if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      close();
    };
    const widened = () => isNarrow() || close();
    document.addEventListener("keydown", pressed);
    window.addEventListener("resize", widened);
    return () => {
      document.removeEventListener("keydown", pressed);
      window.removeEventListener("resize", widened);
      const there = before instanceof HTMLElement && before !== document.body && before.isConnected;
      (there ? before : opener.current)?.focus();
    };
  }, [isOpen, close]);
  return { isOpen, open, close, opener, closer };
}
