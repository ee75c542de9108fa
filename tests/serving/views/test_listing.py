"""Rows on terminals of any width: nothing that is to be copied is ever cut or broken."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from serving.views.listing import Listing

ID = "r_" + "a1b2" * 8


def shown(listing: Listing, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(listing)
    return file.getvalue()


def raters(*rows: tuple[str, ...]) -> Listing:
    listing = Listing(("source", "share", "quarantine", "rater"), "nobody", frozenset({"quarantine"}))
    for row in rows:
        listing.add(*row)
    return listing


def test_there_is_a_table_where_there_is_room_and_prose_makes_room_first() -> None:
    listing = raters(("people", "0.1 (capped)", "propose quarantine: always the left one", ID))
    assert listing.least_width() == 1 + 9 + 15 + 23 + 37
    lines = shown(listing, 85).splitlines()
    assert [line.split("│")[4].strip() for line in lines[3:-1]] == [ID, ""]
    assert {len(line) for line in lines} == {85}
    assert len(shown(listing, 200).splitlines()) == 5, "nothing is wrapped where there is room"


def test_a_narrow_terminal_shows_a_block_for_each_row() -> None:
    listing = raters(("people", "", "[/b] is no markup", ID), ("people", "0.5", "", "r_2"))
    assert [line.rstrip() for line in shown(listing, 50).splitlines()] == [
        "source      people",
        "quarantine  [/b] is no markup",
        f"rater       {ID}",
        "",
        "source  people",
        "share   0.5",
        "rater   r_2",
    ]


def test_no_rows_are_a_sentence() -> None:
    assert shown(raters(), 80) == "nobody\n"


def test_a_row_has_a_cell_for_each_heading() -> None:
    with pytest.raises(ValueError, match="1 cells for 4 headings"):
        raters(("people",))


@given(
    st.lists(st.tuples(*[st.text("abc-9", min_size=1, max_size=30)] * 3), min_size=1, max_size=4), st.integers(45, 160)
)
def test_every_cell_is_found_whole_at_every_width(rows: list[tuple[str, ...]], width: int) -> None:
    listing = Listing(("one", "two", "three"), "none", frozenset({"two"}))
    for row in rows:
        listing.add(*row)
    text = shown(listing, width)
    assert max(map(len, text.splitlines())) <= width
    assert all(cell in text for row in rows for cell in (row[0], row[2]))
