import type { ViewProps } from "../Console";
import "../policies/policies.css";
import { PolicyDiffPage } from "../policies/PolicyDiffPage";
import { PolicyList } from "../policies/PolicyList";
import { PolicyPage } from "../policies/PolicyPage";
import "../releases/releases.css";

/** 7 or policy-v7 is one version, 5-7 two beside each other. */
export function Policies({ id }: ViewProps) {
  if (id === null) return <PolicyList />;
  const [, left, right] = /^(?:policy-v)?(\d{1,9})(?:-(\d{1,9}))?$/.exec(id) ?? [];
  if (left === undefined) return <p>There is no policy {id}.</p>;
  if (right === undefined) return <PolicyPage version={Number(left)} />;
  return <PolicyDiffPage left={Number(left)} right={Number(right)} />;
}
