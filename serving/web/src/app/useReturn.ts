import { useEffect, useRef } from "react";

/** Somebody comes back to the page: they may have done something in another browser meanwhile. */
export function useReturn(back: () => void): void {
  const latest = useRef(back);
  latest.current = back;
  useEffect(() => {
    const came = () => {
      if (document.visibilityState === "visible") latest.current();
    };
    window.addEventListener("focus", came);
    document.addEventListener("visibilitychange", came); // a phone that turns to another app tells no more than this
    return () => {
      window.removeEventListener("focus", came);
      document.removeEventListener("visibilitychange", came);
    };
  }, []);
}
