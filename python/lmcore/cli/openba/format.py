"""The command `lmcore openba format`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, AsJson, Quiet, SkipBadRows, name_of_file, plain_text, whole
from lmcore.cli.terminal import say, show_bytes, show_json

if TYPE_CHECKING:
    from lmcore.openba import FormatSummary


def format_command(
    target_format: Annotated[
        str,
        typer.Argument(
            metavar="chat|code|instruction-generation|tool",
            parser=plain_text,
            help="What the rows become.",
            show_default=False,
        ),
    ],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            parser=name_of_file,
            help="JSONL, or a list in JSON: ShareGPT, messages, BELLE, LIMA or DialogStudio; "
            "instruction and output; query and results. .gz is compressed, `-` is standard input.",
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
    identity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Dialogues about the model itself, any number of times; for chat.",
        ),
    ] = None,
    identity_copies: Annotated[
        int, whole(1, 1000, text="How often each pair of them is written.")
    ] = 10,
    chinese_copies: Annotated[
        int, whole(1, 1000, text="How often a Chinese pair of instruction-generation is written.")
    ] = 2,
    max_turns: Annotated[
        int, whole(0, MOST, text="Most turns of a chat's source, the last ones; 0 keeps all.")
    ] = 0,
    language: Annotated[
        str,
        typer.Option(
            metavar="auto|en|zh",
            parser=plain_text,
            help="Of rows that name none; auto looks at their characters.",
        ),
    ] = "auto",
    skip_bad_rows: SkipBadRows = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Turn dialogues, code or searches into pairs to learn from.

    A dialogue becomes a pair for each of its turns. What has no place in the format is counted.
    """
    settings = {
        "format": target_format, "language": language, "max_turns": max_turns or None,
        "identity_copies": identity_copies, "chinese_copies": chinese_copies,
    }  # fmt: skip
    options = {"identity": identity or [], "skip_bad_rows": skip_bad_rows}
    summary = _write(files, out, settings, options, as_json=as_json, quiet=quiet)
    _show_summary(summary, as_json=as_json)


def _write(
    files: list[str],
    out: str,
    settings: dict[str, Any],
    options: dict[str, Any],
    *,
    as_json: bool,
    quiet: bool,
) -> FormatSummary:
    with starting():
        from lmcore.openba import FormatConfig, write_formatted

    if as_json and out == "-":
        raise ValueError("--json and the rows cannot both go to standard output: name a file")
    config = FormatConfig(**settings)
    with show_bytes([*files, *options["identity"]], quiet=quiet) as progress:
        return write_formatted(files, out, config, progress=progress, **options)


def _show_summary(summary: FormatSummary, *, as_json: bool) -> None:
    for row in summary.listed_bad_rows:
        say(f"skipped {row}")
    if as_json:
        show_json(asdict(summary), indent=2)
        return
    languages = ", ".join(f"{count} {name}" for name, count in summary.languages.items())
    say(
        f"{summary.rows} rows read, {summary.bad_rows} skipped: {summary.pairs} pairs, "
        f"{summary.copies} of them copies ({languages})"
    )
    for name, count in sorted(summary.left_out.items()):
        if count:
            say(f"{name}: {count}" if name == "joined turns" else f"left out, {name}: {count}")
