import type { ViewProps } from "../Console";
import { RoundList } from "../rounds/RoundList";
import { RoundPage } from "../rounds/RoundPage";
import "../rounds/rounds.css";

export function Rounds({ id }: ViewProps) {
  if (id === null) return <RoundList />;
  return /^\d{1,9}$/.test(id) ? <RoundPage id={Number(id)} /> : <p>There is no round {id}.</p>;
}
