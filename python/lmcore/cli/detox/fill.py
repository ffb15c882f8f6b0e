"""The command `lmcore detox fill`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    apply_steps,
    make_fill_step,
)
from lmcore.cli.options import Device, Quiet, SkipBadRows, Threads

if TYPE_CHECKING:
    from lmcore.detox import Scorer
    from lmcore.detox.steps import Step


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
    apply_steps(_make, {**locals()})


def _make(given: dict[str, Any], scorer: Scorer | None, device: str) -> list[Step]:
    return [make_fill_step(given, scorer, device)]
