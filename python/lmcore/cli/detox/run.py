"""The command `lmcore detox run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.detox.mask import Every, MaskForm, PromptThreshold
from lmcore.cli.detox.scorer_options import Cache, Checkpoint, Label, Unpickle
from lmcore.cli.detox.spans import (
    BatchTokens,
    Overlap,
    Precision,
    ResumeRows,
    Target,
    Threshold,
    Window,
)
from lmcore.cli.detox.step_options import (
    Attempts,
    BatchSize,
    CleanThreshold,
    Field,
    Filler,
    Format,
    LanguageModel,
    LeastSimilarity,
    MaxNewTokens,
    Prompts,
    Samples,
    ScorerName,
    Seed,
    SimilarityModel,
    Temperature,
    TopP,
    apply_steps,
    make_continue_step,
    make_fill_step,
    make_mask_step,
)
from lmcore.cli.options import Device, Quiet, SkipBadRows, Threads, name_of_file

if TYPE_CHECKING:
    from lmcore.detox import Scorer
    from lmcore.detox.steps import Step


def run_command(
    source: Prompts,
    target: Target,
    spans: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of a Segment-CNN and its tokenizer, or of a run of `train-spans`.",
            show_default=False,
        ),
    ],
    filler: Filler,
    model: LanguageModel,
    scorer: ScorerName,
    form: MaskForm = "pieces",
    prompt_threshold: PromptThreshold = 0.5,
    every: Every = False,
    threshold: Threshold = 0.5,
    window: Window = None,
    overlap: Overlap = None,
    batch_tokens: BatchTokens = 2048,
    precision: Precision = "float32",
    attempts: Attempts = 5,
    clean_threshold: CleanThreshold = 0.5,
    similarity: SimilarityModel = None,
    least_similarity: LeastSimilarity = None,
    samples: Samples = 25,
    max_new_tokens: MaxNewTokens = 20,
    top_p: TopP = 0.9,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
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
    """Detoxify prompts: mask, fill until clean and similar, continue, score and select.

    A row is that of the input with what each step adds, so that `lmcore detox evaluate` and
    `lmcore detox chains` take it. A killed run goes on where it was, and ends with the same bytes.
    """
    apply_steps(_make, {**locals()})


def _make(given: dict[str, Any], scorer: Scorer | None, device: str) -> list[Step]:
    from lmcore.detox import SelectStep

    return [
        make_mask_step(given, device),
        make_fill_step(given, scorer, device),
        make_continue_step(given, device),
        SelectStep(scorer=scorer),
    ]
