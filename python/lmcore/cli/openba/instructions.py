"""The command `lmcore openba instructions`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._text import escape
from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, AsJson, Quiet, SkipBadRows, name_of_file, plain_text, whole
from lmcore.cli.terminal import say, show, show_bytes, show_json

if TYPE_CHECKING:
    from lmcore.openba import InstructionSummary


def instructions_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            parser=name_of_file,
            help="Rows of tasks: JSONL with any fields, the task under `task` or in the file's "
            "name. .gz is compressed, `-` is standard input.",
            show_default=False,
        ),
    ],
    templates: Annotated[
        str,
        typer.Option(
            metavar="FILE.json",
            parser=name_of_file,
            help='Of each task: {"task": [{"source": "... {field} ...", "target": "{field}", '
            '"language": "en"}]}.',
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="OUT.jsonl",
            parser=name_of_file,
            help="Rows with source, target, task and language; `-` is standard output.",
            show_default=False,
        ),
    ],
    cap: Annotated[int, whole(0, MOST, text="Most rows of a task; 0 takes all.")] = 30_000,
    ratio: Annotated[
        str,
        typer.Option(
            metavar="EN:ZH|none",
            parser=plain_text,
            help="English to Chinese, such as 66.7:33.3; none takes what there is.",
        ),
    ] = "2:1",
    repeat: Annotated[
        bool,
        typer.Option(
            "--repeat", help="Repeat rows of the language that is short, and leave none out."
        ),
    ] = False,
    language: Annotated[
        str | None,
        typer.Option(
            metavar="en|zh",
            parser=plain_text,
            help="Of rows that name none, where their templates name none either.",
        ),
    ] = None,
    seed: Annotated[int, whole(0, 2**64 - 1, text="Of choices and the order.")] = 0,
    skip_bad_rows: SkipBadRows = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Turn rows of tasks into a collection of instructions.

    Each row gets one of its task's templates, and `pack --pairs` takes the output. What was left
    out or repeated for the cap and the ratio is said for each task.
    """
    settings = {
        "cap": cap or None, "ratio": ratio, "repeat": repeat, "language": language, "seed": seed,
    }  # fmt: skip
    summary = _write(files, templates, out, settings, skip_bad_rows, quiet, as_json=as_json)
    _show_summary(summary, as_json=as_json, beside=out == "-")


def _write(
    files: list[str],
    templates: str,
    out: str,
    settings: dict[str, Any],
    skip_bad_rows: bool,
    quiet: bool,
    *,
    as_json: bool,
) -> InstructionSummary:
    with starting():
        from lmcore.openba import InstructionConfig, write_instructions

    if as_json and out == "-":
        raise ValueError("--json and the rows cannot both go to standard output: name a file")
    config = InstructionConfig(**settings)
    with show_bytes(files, quiet=quiet) as progress:
        return write_instructions(
            files, templates, out, config, skip_bad_rows=skip_bad_rows, progress=progress
        )


def _show_summary(summary: InstructionSummary, *, as_json: bool, beside: bool) -> None:
    """Prints what is in the collection; beside rows on standard output, on standard error."""
    for row in summary.listed_bad_rows:
        say(f"skipped {row}")
    if as_json:
        show_json(asdict(summary), indent=2)
        return
    from lmcore._tables import format_table

    tell = say if beside else show
    head = ("task", "language", "rows", "over cap", "over ratio", "repeated", "written", "share")
    rows = [
        (
            escape(task.task), task.language, f"{task.rows:,}", f"{task.over_cap:,}",
            f"{task.over_ratio:,}", f"{task.repeated:,}", f"{task.written:,}", f"{task.share:.1%}",
        )
        for task in summary.tasks
    ]  # fmt: skip
    for line in format_table(rows, head):
        tell(line)
    shares = ", ".join(f"{share:.1%} {name}" for name, share in summary.languages.items())
    say(f"{summary.rows} rows written, {summary.bad_rows} skipped: {shares}")
    if summary.short is not None:
        repeated = sum(task.repeated for task in summary.tasks)
        left_out = sum(task.over_ratio for task in summary.tasks)
        said = f"{repeated} of its rows are repeated"
        if left_out:
            said = f"{left_out} rows of the other language are left out"
        say(f"{summary.short} is short of the ratio: {said}")
