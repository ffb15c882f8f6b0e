"""The command `lmcore openba pack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, Quiet, SkipBadRows, name_of_file, plain_text, whole
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from lmcore.openba import PackSummary


def pack_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            parser=name_of_file,
            help="Text (a line is a document), JSONL (text) or parquet (column text). .gz is "
            "compressed, `-` is standard input.",
            show_default=False,
        ),
    ],
    tokenizer: Annotated[
        str,
        typer.Option(
            metavar="FILE|DIR",
            parser=name_of_file,
            help="A SentencePiece file, or the folder of a tokenizer.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="PREFIX",
            parser=name_of_file,
            help="Name of the outputs: PREFIX.bin, PREFIX.idx and PREFIX.json.",
            show_default=False,
        ),
    ],
    length: Annotated[int, whole(1, MOST, text="Tokens of a group.")] = 568,
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|text|jsonl|parquet",
            parser=plain_text,
            help="Form of the files; auto looks at their names.",
        ),
    ] = "auto",
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where PREFIX ended, or anew.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Turn texts into groups of tokens for pre-training, in Megatron's token files.

    Documents are tokenized, ended with </s>, and cut into groups of one length. A killed run goes
    on where it was.
    """
    options = {"length": length, "form": data_format, "resume": resume}
    summary = _pack(files, tokenizer, out, quiet, skip_bad_rows=skip_bad_rows, **options)
    for row in summary.listed_bad_rows:
        say(f"skipped {row}")
    _say_summary(summary)


def _pack(files: list[str], tokenizer: str, out: str, quiet: bool, **options: Any) -> PackSummary:
    with starting():
        from tqdm import tqdm

        from lmcore.openba import load_tokenizer, pack_files

    sizes = [Path(file).stat().st_size for file in files if Path(file).is_file()]
    total = sum(sizes) if len(sizes) == len(files) else None
    bar = tqdm(total=total, unit="B", unit_scale=True, disable=True if quiet else None, leave=False)
    with bar:
        return pack_files(
            files, load_tokenizer(tokenizer), out,
            progress=lambda done: bar.update(done - bar.n), **options,
        )  # fmt: skip


def _say_summary(summary: PackSummary) -> None:
    resumed = f", {summary.resumed_documents} of them before" if summary.resumed_documents else ""
    say(
        f"{summary.documents} documents packed{resumed}, {summary.bad_rows} skipped: "
        f"{summary.groups} groups of {summary.length} tokens, {len(summary.remainder)} left over"
    )
