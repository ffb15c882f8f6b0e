"""The command `lmcore detox fill`."""

from __future__ import annotations

from typing import Any

from lmcore.cli.detox.scorer_options import Cache, Checkpoint, Label, Unpickle
from lmcore.cli.detox.spans import ResumeRows, Target
from lmcore.cli.detox.step_options import (
    Attempts,
    BatchSize,
    CleanThreshold,
    Field,
    Filler,
    Format,
    LeastSimilarity,
    Rows,
    ScorerName,
    Seed,
    SimilarityModel,
    Temperature,
    TopP,
    make_fill_step,
    run_command,
)
from lmcore.cli.options import Device, Quiet, SkipBadRows, Threads


def fill_command(
    source: Rows,
    target: Target,
    filler: Filler,
    scorer: ScorerName,
    attempts: Attempts = 5,
    clean_threshold: CleanThreshold = 0.5,
    similarity: SimilarityModel = None,
    least_similarity: LeastSimilarity = None,
    top_p: TopP = 0.9,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    label: Label = None,
    checkpoint: Checkpoint = None,
    unpickle: Unpickle = False,
    cache: Cache = None,
    field: Field = None,
    data_format: Format = "auto",
    device: Device = None,
    threads: Threads = None,
    skip_bad_rows: SkipBadRows = False,
    resume: ResumeRows = True,
    quiet: Quiet = False,
) -> None:
    """Put words in the place of masks, until a text is clean and similar to its prompt.

    Of a prompt for which no attempt gives one, the least toxic text is written and marked. A killed
    run goes on where it was, and ends with the same bytes.
    """
    folders = {"filler": filler, "similarity": similarity}
    settings: dict[str, Any] = {"attempts": attempts, "threshold": clean_threshold, "seed": seed}
    settings |= {"top_p": top_p, "temperature": temperature, "batch_size": batch_size}
    settings |= {"least_similarity": least_similarity}
    judge: dict[str, Any] = {
        "name": scorer,
        "label": label,
        "checkpoint": checkpoint,
        "unpickle": unpickle,
    }
    judge |= {"cache": cache, "batch_size": batch_size}
    rows = {"field": field, "form": data_format, "skip_bad_rows": skip_bad_rows, "resume": resume}
    run_command(
        lambda place, found: [make_fill_step(folders, found, settings, place)] if found else [],
        (source, target), rows, judge, device=device, threads=threads, quiet=quiet,
    )  # fmt: skip
