import { useCallback, useLayoutEffect, useRef, useState } from "react";

const NEAR_PX = 60;

/** Keeps the end in view while text grows, unless the reader has scrolled up. */
export function useFollowing(grows: unknown) {
  const ref = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const [atEnd, setAtEnd] = useState(true);

  const onScroll = useCallback(() => {
    const { scrollHeight, scrollTop, clientHeight } = ref.current!;
    follows.current = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    setAtEnd(follows.current);
  }, []);
  const toEnd = useCallback(() => {
    follows.current = true;
    setAtEnd(true);
    ref.current!.scrollTop = ref.current!.scrollHeight;
  }, []);
  useLayoutEffect(() => {
    if (follows.current) ref.current!.scrollTop = ref.current!.scrollHeight;
  }, [grows]);
  return { ref, onScroll, toEnd, atEnd };
}
