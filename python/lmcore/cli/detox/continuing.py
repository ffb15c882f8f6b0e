"""The command `lmcore detox continue`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    apply_steps,
    make_continue_step,
)
from lmcore.cli.options import Device, Quiet, SkipBadRows, Threads

if TYPE_CHECKING:
    from lmcore.detox import Scorer
    from lmcore.detox.steps import Step


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
    apply_steps(_make, {**locals()})


def _make(given: dict[str, Any], _: Scorer | None, device: str) -> list[Step]:
    return [make_continue_step(given, device)]
