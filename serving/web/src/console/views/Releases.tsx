import type { ViewProps } from "../Console";
import { ReleaseList } from "../releases/ReleaseList";
import { ReleasePage } from "../releases/ReleasePage";
import "../releases/releases.css";

export const Releases = ({ id }: ViewProps) => (id === null ? <ReleaseList /> : <ReleasePage id={id} />);
