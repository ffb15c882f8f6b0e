"""Tables for a terminal, laid out by rich: columns fit where a character takes two places, too."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text


def format_table(
    rows: Sequence[Sequence[str]], head: Sequence[str] | None = None, *, gap: int = 2
) -> list[str]:
    """Returns the lines of a table: the first column to the left, numbers to the right.

    Nothing is wrapped, cropped or coloured, so that lines are the same on a terminal and in a
    file.

    Args:
        rows: cells in which what comes from data is escaped already (`lmcore._text`).
        head: names of the columns; none are shown if None.
        gap: spaces between columns.

    Example:
        >>> format_table([("Ada", "7"), ("北京", "12")], ("name", "rows"))
        ['name  rows', 'Ada      7', '北京    12']
    """
    cells = [*rows] if head is None else [head, *rows]
    if not cells:
        return []
    # Cells are texts, not markup: `[red]` is a name like others.
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), show_header=False)
    for number, _ in enumerate(cells[0]):
        table.add_column(justify="right" if number else "left", no_wrap=True)
    for row in cells:
        table.add_row(*map(Text, row))
    width = sum(max(map(cell_len, column)) + gap for column in zip(*cells, strict=True))
    console = Console(width=width, color_system=None, legacy_windows=False, emoji=False)
    lines = console.render_lines(table, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]
