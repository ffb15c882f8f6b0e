"""The command `lmcore compression count`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import Quiet, SkipBadRows, name_of_file, plain_text
from lmcore.cli.terminal import say, show

if TYPE_CHECKING:
    from lmcore.compression import CountSummary


def count_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS...",
            parser=name_of_file,
            help="Text (a line is a document), JSONL or parquet, .gz is compressed, `-` is "
            "standard input; or ids: PREFIX of PREFIX.bin and PREFIX.idx, or .npy.",
            show_default=False,
        ),
    ],
    tokenizer: Annotated[
        str,
        typer.Option(
            metavar="DIR|FILE",
            parser=name_of_file,
            help="A folder with tokenizer.json, spiece.model or tokenizer.model, or such a file.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Where the counts go, for `vocabulary`.",
            show_default=False,
        ),
    ],
    groups: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            metavar="NAME=PATTERN",
            parser=plain_text,
            help="Count files whose names fit apart, such as zh='data/zh/*'; any number of times, "
            "the first that fits counts. What fits none is in the group `other`.",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="group|language",
            parser=plain_text,
            help="With language, each document is counted by its script: en, zh or other.",
        ),
    ] = "group",
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|text|jsonl|parquet",
            parser=plain_text,
            help="Form of the texts; auto looks at their names.",
        ),
    ] = "auto",
    key: Annotated[
        str,
        typer.Option(
            metavar="NAME", parser=plain_text, help="Of the text in JSONL, or column in parquet."
        ),
    ] = "text",
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where FILE ended, or anew.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Count how often each token of a tokenizer occurs in corpora, all together or by group.

    Texts are plain: what spells a special token is cut as text. All cores work, and a killed run
    goes on where it was. The counts say which tokens a smaller vocabulary keeps.
    """
    options = {"by": by, "form": data_format, "key": key, "resume": resume}
    summary = _count(files, tokenizer, out, quiet, groups, skip_bad_rows=skip_bad_rows, **options)
    for row in summary.listed_bad_rows:
        say(f"skipped {row}")
    _show_summary(summary)


def _count(
    files: list[str],
    tokenizer: str,
    out: str,
    quiet: bool,
    groups: list[str] | None,
    **options: Any,
) -> CountSummary:
    with starting():
        from tqdm import tqdm

        from lmcore.compression import count_files

    sizes = [
        Path(name).stat().st_size
        for name in (*files, *(f"{file}.bin" for file in files))
        if Path(name).is_file()
    ]
    total = sum(sizes) if len(sizes) == len(files) else None
    bar = tqdm(total=total, unit="B", unit_scale=True, disable=True if quiet else None, leave=False)
    with bar:
        return count_files(
            files, tokenizer, out, groups=list(map(_split, groups or [])),
            progress=lambda done: bar.update(done - bar.n), **options,
        )  # fmt: skip


def _split(text: str) -> tuple[str, str]:
    name, mark, pattern = text.partition("=")
    if not (name and mark and pattern):
        raise typer.BadParameter(f"--group: expected NAME=PATTERN, got {text[:60]!r}")
    return name, pattern


def _show_summary(summary: CountSummary) -> None:
    resumed = f", {summary.resumed_tokens:,} of them before" if summary.resumed_tokens else ""
    say(
        f"{summary.tokens:,} tokens counted{resumed}, in {summary.documents:,} documents, "
        f"{summary.bad_rows:,} skipped"
    )
    for name, counts in summary.counts.groups.items():
        kinds = int((counts > 0).sum())
        show(f"{name}: {int(counts.sum()):,} tokens, {kinds:,} of {len(counts):,} kinds")
