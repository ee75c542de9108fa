import { useEffect } from "react";
import { policies, type PolicyList } from "../../api/policies";
import { usePolled, type Polled } from "../parts/usePolled";
import { swapping } from "./words";

const EVERY_MS = 10_000;
const SWAPPING_MS = 1_000;

/** All versions; asked for again soon while what serves is not yet what is to serve. */
export function usePolicies(): Polled<PolicyList> {
  const polled = usePolled(policies.list, EVERY_MS);
  const { value, refresh } = polled;
  useEffect(() => {
    if (value === undefined || !swapping(value)) return;
    const timer = window.setTimeout(() => document.hidden || void refresh(), SWAPPING_MS);
    return () => window.clearTimeout(timer);
  }, [value, refresh]);
  return polled;
}
