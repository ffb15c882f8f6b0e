"""The command `lmcore detox continue`."""

from __future__ import annotations

from typing import Any

from lmcore.cli.detox.spans import ResumeRows, Target
from lmcore.cli.detox.step_options import (
    BatchSize,
    Field,
    Format,
    LanguageModel,
    MaxNewTokens,
    Prompts,
    Samples,
    Seed,
    Temperature,
    TopP,
    make_continue_step,
    run_command,
)
from lmcore.cli.options import Device, Quiet, SkipBadRows, Threads


def continue_command(
    source: Prompts,
    target: Target,
    model: LanguageModel,
    samples: Samples = 25,
    max_new_tokens: MaxNewTokens = 20,
    top_p: TopP = 0.9,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    field: Field = None,
    data_format: Format = "auto",
    device: Device = None,
    threads: Threads = None,
    skip_bad_rows: SkipBadRows = False,
    resume: ResumeRows = True,
    quiet: Quiet = False,
) -> None:
    """Continue prompts: the rephrased text of a row, or its prompt where nothing is masked.

    A row is that of the input with generations, without what they continue. A killed run goes on
    where it was, and ends with the same bytes.
    """
    settings: dict[str, Any] = {"samples": samples, "max_new_tokens": max_new_tokens, "seed": seed}
    settings |= {"top_p": top_p, "temperature": temperature, "batch_size": batch_size}
    rows = {"field": field, "form": data_format, "skip_bad_rows": skip_bad_rows, "resume": resume}
    run_command(
        lambda place, _: [make_continue_step(model, settings, place)],
        (source, target), rows, device=device, threads=threads, quiet=quiet,
    )  # fmt: skip
