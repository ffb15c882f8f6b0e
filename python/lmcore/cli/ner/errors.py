"""The command `lmcore ner errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lmcore.cli.failures import starting
from lmcore.cli.ner.scoring import Against, AsJson, Form, make_options, make_reading
from lmcore.cli.options import Scheme, SkipBadRows, Threads, Tokenizer, name_of_file, whole
from lmcore.cli.terminal import show, show_json
from lmcore.ops.entities import SCHEMES

if TYPE_CHECKING:
    from lmcore.ner.errors import ErrorReport
    from lmcore.ner.labelled import Reading


def errors_command(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            parser=name_of_file,
            help="Predictions, as for `lmcore ner score`.",
            show_default=False,
        ),
    ],
    against: Against = None,
    examples: Annotated[int, whole(0, 1000, text="Examples of each kind of error.")] = 3,
    html: Annotated[
        str | None,
        typer.Option(metavar="FILE", parser=name_of_file, help="Write the report as a page."),
    ] = None,
    scheme: Scheme = SCHEMES[0],
    form: Form = "auto",
    tokenizer: Tokenizer = None,
    as_json: AsJson = False,
    skip_bad_rows: SkipBadRows = False,
    threads: Threads = None,
) -> None:
    """Show missed entities: unlabelled, noisy and boundary shares, per type, with examples.

    Unlabelled: no predicted entity touches it. Noisy: only entities of other types do. Boundary:
    one of its type does, with another extent.
    """
    options = make_options(scheme, skip_bad_rows, threads, tokenizer)
    reading = make_reading({**options, "form": form})
    files = [file, *([] if against is None else [against])]
    reports = _find(files, scheme, examples, reading, html)
    _show(reports, html, as_json=as_json)


def _find(
    files: list[str], scheme: str, examples: int, reading: Reading, html: str | None
) -> dict[str, ErrorReport]:
    with starting():
        from lmcore._files import find_output
        from lmcore.ner.errors import find_errors
        from lmcore.ner.labelled import read_labelled

    if html is not None:
        find_output(html, files)
    return {
        name: find_errors(read_labelled(name, reading), scheme, examples=examples) for name in files
    }


def _show(reports: dict[str, ErrorReport], html: str | None, *, as_json: bool) -> None:
    from lmcore._files import write_text
    from lmcore.ner.error_report import format_errors, render_errors

    if html is not None:
        write_text(html, render_errors(reports), [*reports])
    if as_json:
        show_json({name: report.to_dict() for name, report in reports.items()})
    else:
        show(format_errors(reports))
