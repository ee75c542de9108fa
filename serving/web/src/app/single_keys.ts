/** Whether plain keys do something: who dictates, or strikes keys by accident, can turn them off (WCAG 2.1.4). */
const KEY = "ratchet.single_keys";
let here: boolean | null = null;

export function singleKeys(): boolean {
  if (here !== null) return here;
  try {
    return localStorage.getItem(KEY) !== "off";
  } catch {
    return true;
  }
}

export function chooseSingleKeys(on: boolean): void {
  here = on; // until the page is left, where storage is full or forbidden
  try {
    if (on) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, "off");
    here = null;
  } catch {
    // Then it lasts until the page is left.
  }
}

/** A key that is turned off: one that writes a character, with nothing held but Shift. */
export const turnedOff = (event: KeyboardEvent): boolean =>
  event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey && !singleKeys();
