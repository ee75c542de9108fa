import type { ReactNode } from "react";

/** Around Figures. */
export const Figures = ({ children }: { children: ReactNode }) => <dl className="c-figures">{children}</dl>;

interface FigureProps {
  name: string;
  /** Of what is not known: null. */
  value: ReactNode;
  /** Such as its interval, or what it is measured against. */
  note?: ReactNode;
}

export function Figure({ name, value, note }: FigureProps) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value ?? <span className="muted">unknown</span>}</dd>
      {note != null && <dd className="muted small">{note}</dd>}
    </div>
  );
}
