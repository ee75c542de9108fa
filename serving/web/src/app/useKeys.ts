import { useEffect, useRef } from "react";
import { turnedOff } from "./single_keys";

/** What a key does; false leaves it to others. */
export type Keys = Record<string, (event: KeyboardEvent) => unknown>;

/** Keys of the whole page, named like "ctrl+shift+o", "?" or "escape"; none while a dialog is open. */
export function useKeys(keys: Keys): void {
  const latest = useRef(keys);
  latest.current = keys;
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
      if (turnedOff(event)) return;
      const act = latest.current[nameOf(event)];
      if (act && act(event)) event.preventDefault();
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, []);
}

function nameOf(event: KeyboardEvent): string {
  const held = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (!held) return event.altKey ? `alt+${key}` : key;
  return `ctrl+${event.shiftKey ? "shift+" : ""}${key}`;
}

export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target;
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}
