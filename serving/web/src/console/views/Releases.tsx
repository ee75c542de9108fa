import type { ViewProps } from "../Console";
import { ReleaseList } from "../releases/ReleaseList";
import { ReleasePage } from "../releases/ReleasePage";
import "../releases/releases.css";

const ID = /^(\d{1,9}|current)$/;

export function Releases({ id }: ViewProps) {
  if (id === null) return <ReleaseList />;
  return ID.test(id) ? <ReleasePage id={id} /> : <p>There is no release {id}.</p>;
}
