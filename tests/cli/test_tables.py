"""Tables: columns that fit, and cells as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lmcore._tables import format_table

PLAIN = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


@given(
    st.integers(1, 5).flatmap(
        lambda width: st.lists(st.lists(PLAIN, min_size=width, max_size=width), min_size=1)
    ),
    st.integers(1, 3),
)
def test_plain_cells_are_padded(rows: list[list[str]], gap: int) -> None:
    """Markup, links and emoji codes of rich are texts here."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    expected = [
        (" " * gap).join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    assert format_table(rows, gap=gap) == [line.rstrip() for line in expected]
    assert format_table(rows[1:], rows[0], gap=gap) == format_table(rows, gap=gap)


@pytest.mark.parametrize("name", ["[red]a[/red]", "[/]", ":smile:", "[link=x]y[/link]", "\\[a]"])
def test_nothing_is_markup(name: str) -> None:
    assert format_table([(name, "1")]) == [f"{name}  1"]


def test_wide_characters_take_two_places() -> None:
    lines = format_table([("北京", "1"), ("Rio", "23"), ("ë", "4")], ("city", "rows"))
    assert {cell_len(line) for line in lines} == {10}


def test_long_cells_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    long = "x" * 30_000
    assert format_table([(long, "1"), ("a", "2")])[0] == f"{long}  1"
    assert format_table([]) == []


def test_a_terminal_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = format_table([("a", "1")], ("b", "c"))
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "1")):
        monkeypatch.setenv(name, value)
        assert format_table([("a", "1")], ("b", "c")) == expected
