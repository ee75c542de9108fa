/** Whether there are keys to press: whoever points by finger writes on the screen, without Shift and Enter at once. */
export const hasKeys = (): boolean => matchMedia("(hover: hover)").matches;

/** Whether it sends what is written in a field, rather than beginning a line. */
export const sends = (event: { key: string; shiftKey: boolean; ctrlKey: boolean; metaKey: boolean }): boolean =>
  event.key === "Enter" && !event.shiftKey && (hasKeys() || event.ctrlKey || event.metaKey);

/** What the Enter of a screen keyboard says that it does. */
export const enterHint = (): "send" | "enter" => (hasKeys() ? "send" : "enter");
