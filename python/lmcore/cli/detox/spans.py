"""The command `lmcore detox spans`, and what it shares with `lmcore detox mask`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    Device,
    Quiet,
    SkipBadRows,
    Threads,
    decimal,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcore.detox.span_files import SpanSummary

SpanModel = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="DIR",
        parser=name_of_file,
        help="Folder of a Segment-CNN and its tokenizer, or of a run of `train-spans`.",
        show_default=False,
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        parser=name_of_file,
        help="JSONL with text, content or prompt (a text, or an object with text), or lines "
        "(.txt). .gz is compressed, `-` is standard input.",
        show_default=False,
    ),
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="OUT",
        parser=name_of_file,
        help="Where the rows go, as JSONL; `-` is standard output.",
        show_default=False,
    ),
]
Threshold = Annotated[
    float, decimal(0.0, 0.999999, text="A segment is toxic whose probability is above.")
]
Window = Annotated[
    int | None,
    whole(3, 2**20, text="Positions of a window; those of training by default."),
]
Overlap = Annotated[
    int | None,
    whole(0, 2**20, text="Tokens that two windows of a long text share; a quarter by default."),
]
BatchTokens = Annotated[int, whole(1, 2**31 - 1, text="Positions that are computed at once.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="float32|bfloat16",
        parser=plain_text,
        help="Of the span model; bfloat16 is faster where the processor has it.",
    ),
]
ResumeRows = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on where OUT ended, or start anew.")
]


def spans_command(
    source: Source,
    out: Target,
    model: SpanModel,
    threshold: Threshold = 0.5,
    window: Window = None,
    overlap: Overlap = None,
    batch_tokens: BatchTokens = 2048,
    precision: Precision = "float32",
    device: Device = None,
    threads: Threads = None,
    skip_bad_rows: SkipBadRows = False,
    resume: ResumeRows = True,
    quiet: Quiet = False,
) -> None:
    """Write the toxic spans of each text, as ranges of its characters.

    A row is that of the input with spans, span_texts, span_scores and text_score. A killed run goes
    on where it was.
    """
    settings: dict[str, Any] = {"threshold": threshold, "window": window, "overlap": overlap}
    settings |= {"batch_tokens": batch_tokens, "precision": precision}
    settings |= {"device": "auto" if device is None else device}
    rows = {"skip_bad_rows": skip_bad_rows, "resume": resume}
    done = run_finder("find_spans_file", model, (source, out), settings, rows, threads, quiet)
    say_summary(done, "spans")


def run_finder(
    step: str,
    model: str,
    files: tuple[str, str],
    settings: dict[str, Any],
    rows: dict[str, Any],
    threads: int | None,
    quiet: bool,
) -> SpanSummary:
    """Returns what a function of `lmcore.detox.span_files` did to a file.

    Args:
        step: its name.
        model: folder of the model.
        files: input and output.
        settings: of the finder.
        rows: of the function.
        threads: as for `Threads`.
        quiet: whether there is no bar.
    """
    with starting():
        from tqdm import tqdm

        from lmcore.detox import span_files
        from lmcore.detox.spans import load_span_finder
        from lmcore.training.processes import use_threads

    write: Callable[..., SpanSummary] = getattr(span_files, step)
    with use_threads(limit_threads(threads)):
        finder = load_span_finder(model, **settings)
        with tqdm(unit=" texts", disable=True if quiet else None, leave=False) as bar:
            return write(finder, *files, progress=bar.update, **rows)


def say_summary(done: SpanSummary, what: str) -> None:
    """Prints what was done on standard error.

    Args:
        done: to a file.
        what: spans or masks.
    """
    for row in done.listed_bad_rows:
        say(f"skipped {row}")
    before = f", {done.resumed_rows} of them before" if done.resumed_rows else ""
    say(
        f"{done.rows} rows{before}, {done.bad_rows} skipped: {done.spans} {what} in {done.toxic} "
        "of them"
    )
    if done.passed:
        say(f"{done.passed} prompts are not toxic by their own score, and passed as they are")
    if done.windowed:
        say(f"{done.windowed} texts are longer than a window")
