"""The results of claims as a table for the terminal."""

import shutil
import textwrap
from collections.abc import Sequence

from lmcore.reproduce.claim import ResultRow, Verdict
from lmcore.reproduce.measurements import FOLDER

_SPREAD_NOTE = "Numbers are mean ± sample standard deviation over {count} seeds."
_ONE_SEED_NOTE = "Measured with one seed: no spread, and therefore no verdict."


# Of a terminal: bold green, bold red, bold blue, grey.
_COLOURS: dict[Verdict, str] = {
    "reproduced": "1;32",
    "not reproduced": "1;31",
    "measured": "1;34",
    "not run": "2",
}


def format_table(
    rows: Sequence[ResultRow], width: int | None = None, *, colour: bool = False
) -> str:
    """Returns the results as an aligned plain-text table; what was not run stands at its end.

    Args:
        rows: one per claim.
        width: columns of the table, 100 to 120; those of the terminal if None.
        colour: whether verdicts have colours, which a terminal shows.

    Example:
        >>> format_table([], width=100).split()
        ['claim', 'paper', 'measured', 'here', 'verdict']
    """
    if width is None:
        width = shutil.get_terminal_size((120, 24)).columns
    width = min(max(width, 100), 120)
    gap, claim, verdict = "  ", 24, len("not reproduced")
    left = width - claim - verdict - 3 * len(gap)
    widths = [claim, left * 2 // 5, left - left * 2 // 5, verdict]

    def lay_out(cells: Sequence[str], sizes: Sequence[int] = widths) -> list[str]:
        columns = [_wrap(cell, size) for cell, size in zip(cells, sizes, strict=True)]
        height = max(map(len, columns))
        padded = [column + [""] * (height - len(column)) for column in columns]
        return [
            gap.join(f"{cell:<{size}}" for cell, size in zip(line, sizes, strict=True)).rstrip()
            for line in zip(*padded, strict=True)
        ]

    def paint(lines: list[str], verdict: Verdict) -> list[str]:
        """The verdict stands at the end of the first line."""
        if colour:
            start = lines[0].removesuffix(verdict)
            lines[0] = f"{start}\x1b[{_COLOURS[verdict]}m{verdict}\x1b[0m"
        return lines

    lines = lay_out(["claim", "paper", "measured here", "verdict"])
    rule = gap.join("-" * size for size in widths)
    run = [row for row in rows if row.verdict != "not run"]
    for row in run:
        lines.append(rule)
        cells = [f"{row.id}\n{row.statement}", row.paper, row.measured, row.verdict]
        lines += paint(lay_out(cells), row.verdict)
        for name, content in (("speed", row.speed), ("rule", row.rule)):
            if content:
                first, *others = _wrap(content, width - 7)
                lines += ["", f"{name:<7}{first}", *[" " * 7 + line for line in others]]
    not_run = [row for row in rows if row.verdict == "not run"]
    if not_run:
        lines.append(rule)
        sizes = [claim, left + len(gap), verdict]
        for row in not_run:
            cells = [row.id, f"{row.statement}\n{row.reason}", row.verdict]
            lines += paint(lay_out(cells, sizes), row.verdict)
    if rows:
        lines.append(rule)
    if run:
        lines.append(describe_spread(len(run[0].seeds)))
    return "\n".join(lines)


def count_verdicts(rows: Sequence[ResultRow]) -> str:
    """Returns how many rows have which verdict, as text.

    Args:
        rows: one per claim.

    Example:
        >>> count_verdicts([])
        'no claims'
    """
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in _COLOURS}
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n) or "no claims"


def describe_kept(rows: Sequence[ResultRow], folder: str) -> str:
    """Returns how many measurements are those of an earlier run, and how to make them anew.

    Args:
        rows: one per claim.
        folder: of the report.

    Example:
        >>> describe_kept([], "report").partition(",")[0]
        '0 of 0 measurements were there already'
    """
    kept, total = sum(row.kept for row in rows), sum(len(row.seeds) for row in rows)
    return (
        f"{kept} of {total} measurements were there already, from an earlier run with the same "
        f"sources, versions\nand device: --fresh measures them again, and so does a run without "
        f"{folder}/{FOLDER}"
    )


def describe_spread(seed_count: int) -> str:
    """Returns what the numbers are, as text.

    Args:
        seed_count: how many seeds they were measured with.

    Example:
        >>> describe_spread(3)
        'Numbers are mean ± sample standard deviation over 3 seeds.'
    """
    return _ONE_SEED_NOTE if seed_count == 1 else _SPREAD_NOTE.format(count=seed_count)


def _wrap(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        # A mean and its spread stay together.
        joined = line.replace(" ± ", "\0±\0")
        wrapped = textwrap.wrap(joined, width, subsequent_indent="  ", break_on_hyphens=False)
        lines += wrapped or [""]
    return [line.replace("\0", " ") for line in lines] or [""]
