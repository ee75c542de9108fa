import type { ComponentProps, MouseEvent } from "react";
import { go } from "./route";

interface LinkProps extends Omit<ComponentProps<"a">, "href"> {
  to: string;
  onOpen?: () => void;
}

/** To another place of the page, without loading it anew; in a new tab as any link. */
export function Link({ to, onOpen, ...rest }: LinkProps) {
  const open = (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(to);
    onOpen?.();
  };
  return <a {...rest} href={to} onClick={open} />;
}
