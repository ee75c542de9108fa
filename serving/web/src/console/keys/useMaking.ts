import { useContext, useState } from "react";
import { ApiError } from "../../api/client";
import { unsure } from "../parts/outcome";
import { SignedOut } from "../parts/usePolled";

export interface Making {
  making: boolean;
  problem: unknown;
  /** Whether it was made. */
  make: (work: () => Promise<void>) => Promise<boolean>;
}

/** One at a time: what is made by a form. `onUnsure` is called when it may have been made all the same. */
export function useMaking(onUnsure: () => void): Making {
  const [making, setMaking] = useState(false);
  const [problem, setProblem] = useState<unknown>(null);
  const signedOut = useContext(SignedOut);
  const make = async (work: () => Promise<void>): Promise<boolean> => {
    if (making) return false;
    setMaking(true);
    setProblem(null);
    try {
      await work();
      return true;
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) signedOut();
      if (unsure(error)) onUnsure();
      setProblem(error);
      return false;
    } finally {
      setMaking(false);
    }
  };
  return { making, problem, make };
}
