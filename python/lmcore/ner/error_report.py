"""Missed entities as lines for the terminal, and as a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

from lmcore import _page, _tables
from lmcore._text import escape as show
from lmcore.ner import page
from lmcore.ner.errors import KINDS, ErrorExample, ErrorReport
from lmcore.ops.entities import ErrorKinds

_CONFUSIONS = 10
_MEANING = {
    "unlabelled": "no predicted entity touches it",
    "noisy": "only entities of other types touch it",
    "boundary": "an entity of its type touches it, with another extent",
}

Rows = list[list[str]]


def format_errors(reports: Mapping[str, ErrorReport]) -> str:
    """Returns reports as lines of text, in which what comes from data is escaped.

    Args:
        reports: by the name of the file; of several the shares stand side by side first.

    Example:
        >>> print(format_errors({"a": ErrorReport(scheme="gner")}).splitlines()[0])
        scheme gner
    """
    first = next(iter(reports.values()))
    lines = [f"scheme {first.scheme}"]
    if len(reports) > 1:
        lines += ["", *_tables.format_table(_shares_of_files(reports, show), _head("file"))]
        lines += ["", *_tables.format_table(_shares_of_types(reports, show), _head("type"))]
    for name, report in reports.items():
        if len(reports) > 1:
            lines += ["", show(name)]
        else:
            lines += ["", *_tables.format_table(_datasets(report, show), _head("data set"))]
            lines += ["", *_tables.format_table(_types(report, show), _head("type"))]
        if report.confusions:
            lines += ["", "types that were taken for others"]
            lines += _tables.format_table(_confusions(report, show), ("gold", "predicted", "count"))
        for kind in KINDS:
            if report.examples.get(kind):
                lines += ["", f"{kind}: {_MEANING[kind]}"]
                lines += [f"  {_line(example)}" for example in report.examples[kind]]
    return "\n".join(lines)


def render_errors(reports: Mapping[str, ErrorReport]) -> str:
    """Returns reports as a page that needs no other file.

    Args:
        reports: as for `format_errors`.

    Example:
        >>> "<h1>" in render_errors({"a": ErrorReport(scheme="gner")})
        True
    """
    first = next(iter(reports.values()))
    parts = [
        "<h1>Missed entities</h1>",
        f"<p>Scheme <b>{first.scheme}</b>. Shares of the gold entities.</p>",
    ]
    if len(reports) > 1:
        parts.append(_page.table(_head("file"), _shares_of_files(reports, escape)))
        parts.append(_page.table(_head("type"), _shares_of_types(reports, escape)))
    for name, report in reports.items():
        parts.append(f"<h2>{escape(name)}</h2>")
        if len(reports) == 1:
            parts.append(_page.table(_head("data set"), _datasets(report, escape)))
            parts.append(_page.table(_head("type"), _types(report, escape)))
        if report.confusions:
            parts.append("<h2>Types that were taken for others</h2>")
            head = ("gold", "predicted", "count")
            parts.append(_page.table(head, _confusions(report, escape)))
        for kind in KINDS:
            if report.examples.get(kind):
                parts.append(f"<h2>{kind.capitalize()}: {_MEANING[kind]}</h2>")
                parts += [_section(example) for example in report.examples[kind]]
    return _page.render("Missed entities", parts)


def _head(first: str) -> list[str]:
    return [first, "gold", *KINDS, "missed"]


def _shares(kinds: ErrorKinds) -> list[str]:
    missed = sum(kinds[1:])
    return [str(kinds.gold), *(_share(number, kinds.gold) for number in (*kinds[1:], missed))]


def _share(number: int, whole: int) -> str:
    return f"{number} ({100 * number / max(whole, 1):.1f} %)"


def _datasets(report: ErrorReport, name_of: Callable[[str], str]) -> Rows:
    rows = [[name_of(name), *_shares(kinds)] for name, kinds in report.datasets.items()]
    return [*rows, ["all", *_shares(report.total)]] if len(rows) > 1 else rows


def _types(report: ErrorReport, name_of: Callable[[str], str]) -> Rows:
    return [[name_of(name), *_shares(kinds)] for name, kinds in report.types.items()]


def _shares_of_files(reports: Mapping[str, ErrorReport], name_of: Callable[[str], str]) -> Rows:
    return [[name_of(name), *_shares(report.total)] for name, report in reports.items()]


def _shares_of_types(reports: Mapping[str, ErrorReport], name_of: Callable[[str], str]) -> Rows:
    """Each type with one row per file, in the order of the files."""
    nothing = ErrorKinds(0, 0, 0, 0)
    types = sorted({name for report in reports.values() for name in report.types})
    return [
        [f"{name_of(kind)} · {name_of(name)}", *_shares(report.types.get(kind, nothing))]
        for kind in types
        for name, report in reports.items()
    ]


def _confusions(report: ErrorReport, name_of: Callable[[str], str]) -> Rows:
    most = report.confusions.most_common(_CONFUSIONS)
    return [[name_of(gold), name_of(predicted), str(n)] for (gold, predicted), n in most]


def _line(example: ErrorExample) -> str:
    found = ", ".join(f"{text!r} as {kind}" for kind, text in example.predicted) or "nothing"
    sentence = page.join_words([example.before, f"[{example.text}]", example.after])
    return show(f"{example.location}: {sentence.strip()}: {example.type}, predicted: {found}")


def _section(example: ErrorExample) -> str:
    missed = page.mark(example.text, example.type, False, "missed")
    sentence = (
        escape(example.before)
        + page.separate(example.before, example.text)
        + missed
        + page.separate(example.text, example.after)
        + escape(example.after)
    )
    found = " ".join(page.mark(text, kind, False, "predicted") for kind, text in example.predicted)
    return (
        f"<section><header><span>{escape(example.location)}</span></header>"
        f"<div><p>{sentence}</p>"
        f"<p><span class=note>predicted:</span> {found or 'nothing'}</p></div></section>"
    )
