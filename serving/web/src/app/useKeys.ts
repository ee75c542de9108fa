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

/** Whether text is written there, or a switch that has the focus needs the key for itself. */
export function isTyping(target: EventTarget | null, key = ""): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.matches("input:is([type=checkbox], [type=radio])")) return key === " " || key.startsWith("Arrow");
  return target.isContentEditable || target.matches("input, textarea, select");
}
