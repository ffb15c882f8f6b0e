"""The command `lmcore openba clean`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    AsJson,
    Quiet,
    SkipBadRows,
    TextsForm,
    Threads,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import say, show, show_bytes, show_json

if TYPE_CHECKING:
    from lmcore.openba.cleaned_files import CleanSummary
    from lmcore.openba.cleaning import CleanConfig


def clean_command(
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
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of the outputs, one of each input's name, and of report.json.",
            show_default=False,
        ),
    ],
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            parser=plain_text,
            help="Leave a rule out, any number of times: html, links, emails, phone_numbers, "
            "repeats, short_sentences, duplicate_documents, duplicate_paragraphs.",
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            parser=plain_text,
            help="Drop documents in other languages than these, any number of times: en, zh, ...",
        ),
    ] = None,
    most_repeats: Annotated[
        int, whole(1, MOST, text="Longest run of one character that stays.")
    ] = 3,
    minimum_words: Annotated[
        int,
        whole(1, MOST, text="Of a sentence that stays; a Chinese or Japanese character is one."),
    ] = 10,
    paragraph_sentences: Annotated[
        int, whole(1, MOST, text="Of the shortest run that is removed where it stood before.")
    ] = 1,
    max_memory: Annotated[
        int | None,
        whole(
            0,
            2**63 - 1,
            text="Bytes that the hashes of texts and sentences may take; no bound.",
            metavar="BYTES",
        ),
    ] = None,
    data_format: TextsForm = "auto",
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where DIR ended, or anew.")
    ] = True,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Remove what a model should not learn, and what stood before.

    Links, addresses, phone numbers, HTML, runs of one character and short sentences go, and so do
    documents and sentences that stood before. A killed run goes on where it was.
    """
    numbers: dict[str, Any] = {"most_repeats": most_repeats, "minimum_words": minimum_words}
    numbers["paragraph_sentences"] = paragraph_sentences
    options: dict[str, Any] = {"form": data_format, "resume": resume, "max_memory": max_memory}
    options |= {"skip_bad_rows": skip_bad_rows, "threads": limit_threads(threads)}
    config = _make_config(without or [], language or [], numbers)
    summary = _clean(files, out, config, quiet, **options)
    for row in summary.listed_bad_rows:
        say(f"skipped {row}")
    (_show_json if as_json else _show_summary)(summary)


def _make_config(without: list[str], languages: list[str], numbers: dict[str, Any]) -> CleanConfig:
    with starting():
        from lmcore.openba.cleaning import CleanConfig

    return CleanConfig(languages=tuple(languages), **numbers).without(*without)


def _clean(
    files: list[str], out: str, config: CleanConfig, quiet: bool, **options: Any
) -> CleanSummary:
    with starting():
        from lmcore.openba.cleaned_files import clean_files

    with show_bytes(files, quiet=quiet) as progress:
        return clean_files(files, out, config, progress=progress, **options)


def _show_json(summary: CleanSummary) -> None:
    show_json(asdict(summary))


def _show_summary(summary: CleanSummary) -> None:
    from lmcore._tables import format_table

    rows = [
        (name, f"{found.documents:,}", f"{found.characters:,}")
        for name, found in summary.rules.items()
    ]
    for line in format_table(rows, ("rule", "documents", "characters")):
        show(line)
    resumed = f", {summary.resumed_documents} of them before" if summary.resumed_documents else ""
    say(
        f"{summary.documents} documents read{resumed}, {summary.bad_rows} skipped: "
        f"{summary.kept_documents} kept, {summary.kept_characters} of {summary.characters} "
        "characters"
    )
