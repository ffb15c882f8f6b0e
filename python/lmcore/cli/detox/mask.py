"""The command `lmcore detox mask`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lmcore.cli.detox.spans import (
    BatchTokens,
    Overlap,
    Precision,
    ResumeRows,
    Source,
    SpanModel,
    Target,
    Threshold,
    Window,
    run_finder,
    say_summary,
)
from lmcore.cli.options import Device, Quiet, SkipBadRows, Threads, decimal, plain_text


def mask_command(
    source: Source,
    out: Target,
    model: SpanModel,
    form: Annotated[
        str,
        typer.Option(
            metavar="pieces|text",
            parser=plain_text,
            help="Masks in the tokens as BERT writes them, in lower case as the authors have it, "
            "or in the text as it was given.",
        ),
    ] = "pieces",
    prompt_threshold: Annotated[
        float, decimal(0.0, 1.0, text="Prompts are masked whose own toxicity is above.")
    ] = 0.5,
    every: Annotated[
        bool, typer.Option("--all", help="Mask prompts whatever their own toxicity.")
    ] = False,
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
    """Write each prompt with <MASK> in place of its toxic spans.

    A row is that of the input with masked and masks, their number. A prompt that is not toxic by
    its own score passes as it is; of one without a score the model alone decides.
    """
    settings: dict[str, Any] = {"threshold": threshold, "window": window, "overlap": overlap}
    settings |= {
        "batch_tokens": batch_tokens,
        "precision": precision,
        "device": "auto" if device is None else device,
    }
    rows = {"skip_bad_rows": skip_bad_rows, "resume": resume, "form": form}
    rows |= {"prompt_threshold": None if every else prompt_threshold}
    done = run_finder("mask_file", model, (source, out), settings, rows, threads, quiet)
    say_summary(done, "masks")
