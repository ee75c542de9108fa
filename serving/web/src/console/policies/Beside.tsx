import { nameOf, type Pairs } from "../../api/policies";
import { Table } from "../parts/Table";
import { parted, told, type Pair } from "./words";

interface BesideProps {
  name: string;
  /** What one of them is called, where many that one side alone has are folded away. */
  one?: string;
  pairs: Pairs;
  versions: [number, number];
  empty: string;
}

/** In what two versions differ; what there is nothing to hold against unfolds below. */
export function Beside({ name, one, pairs, versions, empty }: BesideProps) {
  const { both, left, right } = parted(pairs, one !== undefined);
  const folded = left.length + right.length > 0;
  return (
    <section>
      <h2>{name}</h2>
      {(both.length > 0 || !folded) && (
        <Rows label={`${name}: what differs`} rows={both} versions={versions} empty={empty} />
      )}
      {[left, right].map((rows, side) => {
        if (rows.length === 0) return null;
        const has = `${rows.length} ${one}s only ${nameOf(versions[side]!)} has`;
        return (
          <details key={side} className="c-fold">
            <summary>{has}</summary>
            <Rows label={has} rows={rows} versions={versions} empty="" />
          </details>
        );
      })}
    </section>
  );
}

interface RowsProps {
  label: string;
  rows: Pair[];
  versions: [number, number];
  empty: string;
}

const Rows = ({ label, rows, versions, empty }: RowsProps) => (
  <Table
    label={label}
    columns={[
      { name: "Name", cell: ([field]) => plain(field) },
      { name: nameOf(versions[0]), cell: ([field, [left]]) => told(left, field) },
      { name: nameOf(versions[1]), cell: ([field, [, right]]) => told(right, field) },
    ]}
    rows={rows}
    id={([field]) => field}
    empty={empty}
  />
);

/** Figures are kept by stage under names that begin with it once more: gate.gate/kl. */
const plain = (field: string): string => field.replace(/(\w+)\.\1\//, "$1.");
