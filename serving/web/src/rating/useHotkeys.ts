import { useEffect, useLayoutEffect, useRef, type RefObject } from "react";
import { turnedOff } from "../app/single_keys";
import { isTyping } from "../app/useKeys";

/** Plain keys on the whole page, by `event.key` in lower case, while nobody writes and no dialog is open but around it. */
export function useHotkeys(keys: Readonly<Record<string, () => void>>, active: boolean, within?: RefObject<HTMLElement | null>): void {
  const current = useRef(keys);
  // With what is shown, not after it: a key that is pressed at once means what is on the page.
  useLayoutEffect(() => {
    current.current = keys;
  });
  useEffect(() => {
    if (!active) return;
    const pressed = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
      if (turnedOff(event) || isTyping(event.target, event.key)) return;
      const dialog = document.querySelector("dialog[open], [aria-modal='true']");
      if (dialog && !dialog.contains(within?.current ?? null)) return;
      const act = current.current[event.key.toLowerCase()];
      if (!act) return;
      event.preventDefault();
      act();
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, [active, within]);
}
