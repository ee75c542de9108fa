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

/**
 * Rows under names; the first column names the row. Where there is no room for columns each row is a card, and each cell
 * says what it is. The roles stand here because a browser may take a table that is laid out otherwise for none.
 */
export function Table<Row>({ label, columns, rows, id, empty }: TableProps<Row>) {
  if (rows.length === 0) return <p className="muted">{empty}</p>;
  const look = (column: Column<Row>) => (column.numeric ? "c-number" : undefined);
  return (
    <div className="c-table c-cards" role="region" aria-label={label} tabIndex={0}>
      <table role="table">
        <thead role="rowgroup">
          <tr role="row">
            {columns.map((column) => (
              <th key={column.name} scope="col" role="columnheader" className={look(column)}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((row) => (
            <tr key={id(row)} role="row">
              {columns.map((column, at) =>
                at === 0 ? (
                  <th
                    key={column.name}
                    scope="row"
                    role="rowheader"
                    className={look(column)}
                    data-label={column.name}
                  >
                    {column.cell(row)}
                  </th>
                ) : (
                  <td key={column.name} role="cell" className={look(column)} data-label={column.name}>
                    <div className="c-cell">{column.cell(row)}</div>
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
