import type { ReactNode } from "react";

export interface Column<Row> {
  name: string;
  cell: (row: Row) => ReactNode;
  /** Numbers stand under each other. */
  numeric?: boolean;
}

interface TableProps<Row> {
  /** What it lists, for those who cannot see it at a glance. */
  label: string;
  columns: Column<Row>[];
  rows: readonly Row[];
  /** What tells a row from the others. */
  id: (row: Row) => string | number;
  /** Said in place of an empty table. */
  empty: string;
}

/** Rows under names; the first column names the row. It scrolls in its own box where there is no room. */
export function Table<Row>({ label, columns, rows, id, empty }: TableProps<Row>) {
  if (rows.length === 0) return <p className="muted">{empty}</p>;
  const look = (column: Column<Row>) => (column.numeric ? "c-number" : undefined);
  return (
    <div className="c-table" role="region" aria-label={label} tabIndex={0}>
      <table>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.name} scope="col" className={look(column)}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={id(row)}>
              {columns.map((column, at) =>
                at === 0 ? (
                  <th key={column.name} scope="row" className={look(column)}>
                    {column.cell(row)}
                  </th>
                ) : (
                  <td key={column.name} className={look(column)}>
                    {column.cell(row)}
                  </td>
                ),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
