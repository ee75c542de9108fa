"""Rows for people to read, however narrow the terminal: a table where there is room, else a block for each row."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

#: Prose may be wrapped to columns as narrow as this.
NARROW = 20
#: What a table's lines and margins take, for each column.
FRAME = 3


@dataclass
class Listing:
    """Plain texts under headings. Only columns in `prose` are wrapped: all else is to be copied. `empty` if no rows."""

    headings: tuple[str, ...]
    empty: str
    prose: frozenset[str] = frozenset()
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """One more row. Raises ValueError unless there is a cell for each heading."""
        if len(cells) != len(self.headings):
            raise ValueError(f"{len(cells)} cells for {len(self.headings)} headings")
        self.rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if not self.rows:
            yield Text(self.empty)
        elif self.least_width() <= options.max_width:
            yield self._table()
        else:
            yield from self._blocks()

    def least_width(self) -> int:
        """Of a table that cuts nothing short."""
        columns = zip(self.headings, *self.rows, strict=True)
        return 1 + sum(FRAME + _needs(cells, wrapped=cells[0] in self.prose) for cells in columns)

    def _table(self) -> Table:
        table = Table()
        for heading in self.headings:
            table.add_column(heading, no_wrap=heading not in self.prose, overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def _blocks(self) -> Iterator[RenderableType]:
        """A line for each cell that says something; a blank line between rows."""
        for number, row in enumerate(self.rows):
            if number:
                yield Text()
            block = Table.grid("", "", padding=(0, 2))
            block.columns[0].no_wrap, block.columns[1].overflow = True, "fold"
            for heading, cell in zip(self.headings, row, strict=True):
                if cell:
                    block.add_row(Text(heading, style="bold"), Text(cell))
            yield block


def _needs(cells: Iterable[str], *, wrapped: bool) -> int:
    widest = max(cell_len(line) for cell in cells for line in (cell.splitlines() or [""]))
    return min(widest, NARROW) if wrapped else widest
