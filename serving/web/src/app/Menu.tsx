import { useEffect, useLayoutEffect, useRef, type KeyboardEvent, type ReactNode } from "react";

interface MenuProps {
  onClose: () => void;
  children: ReactNode;
}

/** Buttons under the one that opened them, which stands before it; arrows move, Esc goes back. */
export function Menu({ onClose, children }: MenuProps) {
  const menu = useRef<HTMLDivElement>(null);
  const close = useRef(onClose);
  close.current = onClose;
  useEffect(() => {
    menu.current?.querySelector("button")?.focus();
    const away = (event: PointerEvent) => {
      if (!menu.current?.parentElement?.contains(event.target as Node)) close.current();
    };
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, []);
  // Before a dialog that is opened from it takes the focus: the dialog gives it back to what is still there.
  useLayoutEffect(() => {
    const closing = menu.current;
    return () => {
      if (closing?.contains(document.activeElement)) opener(closing)?.focus();
    };
  }, []);
  const move = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      onClose();
    }
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (!step) return;
    event.preventDefault();
    const buttons = [...menu.current!.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    buttons.at((at + step) % buttons.length)?.focus();
  };
  return (
    <div className="menu" ref={menu} onKeyDown={move}>
      {children}
    </div>
  );
}

const opener = (menu: HTMLElement | null) => menu?.parentElement?.querySelector<HTMLElement>("[aria-expanded]");
