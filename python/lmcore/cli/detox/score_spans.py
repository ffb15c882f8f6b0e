"""The command `lmcore detox score-spans`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.detox.spans import BatchTokens, Overlap, Precision, Threshold, Window
from lmcore.cli.failures import starting
from lmcore.cli.options import (
    AsJson,
    Device,
    Quiet,
    SkipBadRows,
    Threads,
    limit_threads,
    name_of_file,
)
from lmcore.cli.terminal import say, show, show_bytes, show_json

if TYPE_CHECKING:
    from lmcore.detox import SpanFileScores


def score_spans_command(
    gold: Annotated[
        str,
        typer.Argument(
            metavar="GOLD",
            parser=name_of_file,
            help="SemEval-2021's CSV with spans and text, or JSONL with a text and spans. .gz is "
            "decompressed, `-` is standard input.",
            show_default=False,
        ),
    ],
    predicted: Annotated[
        str | None,
        typer.Argument(
            metavar="PREDICTED",
            parser=name_of_file,
            help="Rows of `detox spans`, or such a file. None with --model.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of a Segment-CNN, which finds the spans of GOLD's texts itself.",
        ),
    ] = None,
    threshold: Threshold = 0.5,
    window: Window = None,
    overlap: Overlap = None,
    batch_tokens: BatchTokens = 2048,
    precision: Precision = "float32",
    device: Device = None,
    threads: Threads = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score found spans by SemEval-2021's F1 of characters: the mean over texts.

    A text's spans are the next ones of that very text in PREDICTED; a text without a counterpart is
    an error, or a row that is skipped and counted. The options of --model are those of `spans`.
    """
    settings: dict[str, Any] = {"threshold": threshold, "window": window, "overlap": overlap}
    settings |= {"batch_tokens": batch_tokens, "precision": precision, "device": device}
    settings |= {"threads": threads}
    if model is None:
        done = _score_files(gold, predicted, settings, skip_bad_rows, quiet)
    else:
        done = _score_model(gold, predicted, model, settings, skip_bad_rows, quiet)
    _report(done, as_json=as_json)


_DEFAULTS = {"threshold": 0.5, "batch_tokens": 2048, "precision": "float32"}


def _score_files(
    gold: str,
    predicted: str | None,
    settings: dict[str, Any],
    skip_bad_rows: bool,
    quiet: bool,
) -> SpanFileScores:
    if predicted is None:
        raise ValueError("PREDICTED or --model must be given: where the spans come from")
    for name, value in settings.items():
        if value != _DEFAULTS.get(name):
            raise ValueError(f"--{name.replace('_', '-')} goes with --model")
    with starting():
        from lmcore.detox import score_span_files

    with show_bytes([gold, predicted], quiet=quiet) as progress:
        return score_span_files(gold, predicted, skip_bad_rows=skip_bad_rows, progress=progress)


def _score_model(
    gold: str,
    predicted: str | None,
    model: str,
    settings: dict[str, Any],
    skip_bad_rows: bool,
    quiet: bool,
) -> SpanFileScores:
    if predicted is not None:
        raise ValueError("PREDICTED must not be given with --model, which finds the spans itself")
    with starting():
        from tqdm import tqdm

        from lmcore.detox import score_finder
        from lmcore.detox.spans import load_span_finder
        from lmcore.training.processes import use_threads

    given = {**settings, "device": "auto" if settings["device"] is None else settings["device"]}
    with use_threads(limit_threads(given.pop("threads"))):
        finder = load_span_finder(model, **given)
        with tqdm(unit=" texts", disable=True if quiet else None, leave=False) as bar:
            return score_finder(finder, gold, skip_bad_rows=skip_bad_rows, progress=bar.update)


def _report(done: SpanFileScores, *, as_json: bool) -> None:
    from lmcore._tables import format_table

    for row in done.listed_bad_rows:
        say(f"skipped {row}")
    if as_json:
        show_json(done.to_dict())
        return
    values = {name: f"{value:.4f}" for name, value in done.scores._asdict().items()}
    rows = [("rows", f"{done.rows:,}"), *values.items(), ("bad_rows", f"{done.bad_rows:,}")]
    show("\n".join(format_table(rows, ("measure", "value"))))
