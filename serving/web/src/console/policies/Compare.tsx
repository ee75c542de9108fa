import { useState } from "react";
import { nameOf } from "../../api/policies";
import { Link } from "../../app/Link";
import { consolePath } from "../../app/route";

export const diffPath = (left: number, right: number): string => consolePath("policies", `${left}-${right}`);

/** Two versions to lay beside each other; at first those of the address, else the newest and the one before. */
export function Compare({ versions, at }: { versions: number[]; at?: [number, number] }) {
  const newest = [...versions].sort((one, other) => other - one);
  const [left, setLeft] = useState(at?.[0] ?? newest[1] ?? newest[0]!);
  const [right, setRight] = useState(at?.[1] ?? newest[0]!);
  const side = (name: string, value: number, onChange: (version: number) => void) => (
    <select aria-label={name} value={value} onChange={(event) => onChange(Number(event.target.value))}>
      {newest.map((version) => (
        <option key={version} value={version}>
          {nameOf(version)}
        </option>
      ))}
    </select>
  );
  return (
    <div className="c-row c-pick" role="group" aria-label="Compare two versions">
      Compare {side("Left version", left, setLeft)} with {side("Right version", right, setRight)}
      {left === right ? (
        <span className="muted">Choose two that differ.</span>
      ) : (
        <Link to={diffPath(left, right)}>Show what differs</Link>
      )}
    </div>
  );
}
