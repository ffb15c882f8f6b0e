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
    make_continue_step,
    make_fill_step,
    run_command,
)
from lmcore.cli.options import Device, Quiet, SkipBadRows, Threads, name_of_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcore.detox import Scorer
    from lmcore.detox.steps import Step


def detox_command(
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
    finder: dict[str, Any] = {"threshold": threshold, "window": window, "overlap": overlap}
    finder |= {"batch_tokens": batch_tokens, "precision": precision}
    masks = {"form": form, "prompt_threshold": None if every else prompt_threshold}
    settings: dict[str, Any] = {"attempts": attempts, "threshold": clean_threshold, "seed": seed}
    settings |= {"top_p": top_p, "temperature": temperature, "batch_size": batch_size}
    settings |= {"least_similarity": least_similarity, "samples": samples}
    settings |= {"max_new_tokens": max_new_tokens}
    folders = {"spans": spans, "filler": filler, "model": model, "similarity": similarity}
    judge: dict[str, Any] = {
        "name": scorer,
        "label": label,
        "checkpoint": checkpoint,
        "unpickle": unpickle,
    }
    judge |= {"cache": cache, "batch_size": batch_size}
    rows = {"field": field, "form": data_format, "skip_bad_rows": skip_bad_rows, "resume": resume}
    make = _plan(folders, finder, masks, settings)
    given: dict[str, Any] = {"device": device, "threads": threads, "quiet": quiet}
    run_command(make, (source, target), rows, judge, **given)


def _plan(
    folders: dict[str, Any],
    finder: dict[str, Any],
    masks: dict[str, Any],
    settings: dict[str, Any],
) -> Callable[[str, Scorer | None], list[Step]]:
    """What makes the steps, of a device and a scorer."""

    def make(device: str, scorer: Scorer | None) -> list[Step]:
        from lmcore.detox import MaskStep, SelectStep, load_span_finder

        assert scorer is not None
        return [
            MaskStep(finder=load_span_finder(folders["spans"], device=device, **finder), **masks),
            make_fill_step(folders, scorer, settings, device),
            make_continue_step(folders["model"], settings, device),
            SelectStep(scorer=scorer),
        ]

    return make
