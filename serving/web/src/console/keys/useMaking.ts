import { useContext, useState } from "react";
import { ApiError } from "../../api/client";
import { SignedOut } from "../parts/usePolled";

export interface Making {
  making: boolean;
  problem: unknown;
  /** Whether it was made. */
  make: (work: () => Promise<void>) => Promise<boolean>;
}

/** One at a time: what is made by a form. */
export function useMaking(): Making {
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
      setProblem(error);
      return false;
    } finally {
      setMaking(false);
    }
  };
  return { making, problem, make };
}
