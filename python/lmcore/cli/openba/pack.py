"""The command `lmcore openba pack`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._files import find_output
from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, Quiet, SkipBadRows, TextsForm, name_of_file, whole
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from lmcore.openba import PackSummary, PairPackSummary


_LENGTH = 568


def pack_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            parser=name_of_file,
            help="Text (a line is a document), JSONL (text) or parquet (column text); with --pairs "
            "JSONL (source and target). .gz is compressed, `-` is standard input.",
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
    of_pairs: Annotated[
        bool, typer.Option("--pairs", help="Pack rows with a source and a target, each by itself.")
    ] = False,
    length: Annotated[int, whole(1, MOST, text="Tokens of a group.")] = _LENGTH,
    data_format: TextsForm = "auto",
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where PREFIX ended, or anew.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Turn texts, or pairs, into token files for training.

    These are Megatron's. Documents are tokenized, ended with </s>, and cut into groups of one
    length. With --pairs rows of instructions become items with a source and a target. A killed run
    goes on where it was.
    """
    options: dict[str, Any] = {"resume": resume, "skip_bad_rows": skip_bad_rows}
    if of_pairs:
        _check_pairs(data_format, length)
        _say_pairs(_pack_pairs(files, tokenizer, out, quiet, options))
    else:
        options |= {"length": length, "form": data_format}
        _say_summary(_pack(files, tokenizer, out, quiet, options))


def _check_pairs(data_format: str, length: int) -> None:
    if data_format not in ("auto", "jsonl"):
        raise ValueError(f"--pairs reads jsonl: got --format {data_format}")
    if length != _LENGTH:
        raise ValueError("--length cuts groups of texts, and not --pairs: nothing is cut")


def _pack(
    files: list[str], tokenizer: str, out: str, quiet: bool, options: dict[str, Any]
) -> PackSummary:
    with starting():
        from lmcore.openba import load_tokenizer, pack_files

    _keep_tokenizer(tokenizer, out)
    with _bar(files, quiet) as progress:
        return pack_files(files, load_tokenizer(tokenizer), out, progress=progress, **options)


def _pack_pairs(
    files: list[str], tokenizer: str, out: str, quiet: bool, options: dict[str, Any]
) -> PairPackSummary:
    with starting():
        from lmcore.openba import load_tokenizer, pack_pairs

    _keep_tokenizer(tokenizer, out)
    with _bar(files, quiet) as progress:
        return pack_pairs(files, load_tokenizer(tokenizer), out, progress=progress, **options)


def _keep_tokenizer(tokenizer: str, out: str) -> None:
    """Refuses outputs that are files of the tokenizer, as DIR/tokenizer.json may be."""
    place = Path(tokenizer)
    files = [*place.iterdir()] if place.is_dir() else [place]
    for ending in ("bin", "idx", "json"):
        find_output(f"{out}.{ending}", files)


@contextmanager
def _bar(files: list[str], quiet: bool) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    sizes = [Path(file).stat().st_size for file in files if Path(file).is_file()]
    total = sum(sizes) if len(sizes) == len(files) else None
    bar = tqdm(total=total, unit="B", unit_scale=True, disable=True if quiet else None, leave=False)
    with bar:
        yield lambda done: bar.update(done - bar.n)


def _say_summary(summary: PackSummary) -> None:
    _say_bad_rows(summary.listed_bad_rows)
    resumed = f", {summary.resumed_documents} of them before" if summary.resumed_documents else ""
    say(
        f"{summary.documents} documents packed{resumed}, {summary.bad_rows} skipped: "
        f"{summary.groups} groups of {summary.length} tokens, {len(summary.remainder)} left over"
    )


def _say_pairs(summary: PairPackSummary) -> None:
    _say_bad_rows(summary.listed_bad_rows)
    resumed = f", {summary.resumed_pairs} of them before" if summary.resumed_pairs else ""
    say(
        f"{summary.pairs} pairs packed{resumed}, {summary.bad_rows} skipped: "
        f"{summary.source_tokens} and {summary.target_tokens} tokens"
    )
    for count, name in ((summary.empty_sources, "sources"), (summary.empty_targets, "targets")):
        if count:
            say(f"{count} {name} have no tokens")
    sides = {"encoder": summary.encoder_lengths, "decoder": summary.decoder_lengths}
    for name, lengths in sides.items():
        said = ", ".join(
            f"{length} for {'all' if share == 'max' else share[1:] + ' %'}"
            for share, length in lengths.items()
        )
        say(f"{name} length: {said}")


def _say_bad_rows(rows: list[str]) -> None:
    for row in rows:
        say(f"skipped {row}")
