"""The command `lmcore compression prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._text import count_noun
from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, Quiet, name_of_file, whole
from lmcore.cli.terminal import say, show

if TYPE_CHECKING:
    from lmcore.compression.model_folders import PruneSummary


def prune_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of the model, or of a run.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            parser=name_of_file,
            help="Another folder, which does not exist or is empty.",
            show_default=False,
        ),
    ],
    plan: Annotated[
        str,
        typer.Option(metavar="PLAN", parser=name_of_file, help="What is kept.", show_default=False),
    ],
    stage: Annotated[
        int | None,
        whole(
            1,
            MOST,
            text="Apply this stage alone, to a model that the stages before have left; all of them "
            "by default, to the original.",
        ),
    ] = None,
    shard_mb: Annotated[int, whole(1, MOST, text="Megabytes of a file of weights.")] = 5000,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where OUT ended, or anew.")
    ] = True,
    latency: Annotated[
        bool,
        typer.Option("--latency", help="Measure both models: the time of a prompt and of a token."),
    ] = False,
    prompt_tokens: Annotated[int, whole(1, MOST, text="Of the prompt of --latency.")] = 128,
    new_tokens: Annotated[int, whole(2, MOST, text="That --latency generates.")] = 32,
    rounds: Annotated[int, whole(1, MOST, text="Of --latency, which shows medians.")] = 5,
    quiet: Quiet = False,
) -> None:
    """Write a smaller model into a folder that transformers opens.

    Weights are streamed, whatever their size. A killed run goes on where it was. --latency loads
    both models, one after the other, and writes their times into OUT/pruning.json, too; a model
    that is there already is measured alone.
    """
    with starting():
        from lmcore._manifest import find_model

    model = str(find_model(model))
    options = {"stage": stage, "max_shard_bytes": shard_mb * 10**6, "resume": resume}
    if not (latency and resume and _is_there(model, out, plan, stage)):
        _say_summary(_prune(model, out, plan, quiet, **options))
    if latency:
        _measure(model, out, quiet, prompt_tokens, new_tokens, rounds)


def _prune(model: str, out: str, plan: str, quiet: bool, **options: Any) -> PruneSummary:
    with starting():
        from tqdm import tqdm

        from lmcore.compression.model_folders import prune_folder
        from lmcore.compression.plan_files import read_plan

    found = read_plan(plan)
    with tqdm(unit="B", unit_scale=True, disable=True if quiet else None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return prune_folder(model, out, found, progress=progress, **options)


def _is_there(model: str, out: str, plan: str, stage: int | None) -> bool:
    with starting():
        from lmcore.compression.model_folders import is_pruned
        from lmcore.compression.plan_files import read_plan

    return is_pruned(model, out, read_plan(plan), stage)


def _measure(
    model: str, out: str, quiet: bool, prompt_tokens: int, new_tokens: int, rounds: int
) -> None:
    with starting():
        from tqdm import tqdm

        from lmcore.compression.latency import compare_latency, format_latency, record_latency

    total = 2 * (rounds + 1)
    with tqdm(total=total, unit="round", disable=True if quiet else None, leave=False) as bar:
        report = compare_latency(
            model, out, prompt_tokens=prompt_tokens, new_tokens=new_tokens, rounds=rounds,
            progress=bar.update,
        )  # fmt: skip
    record_latency(out, report)
    show("\n".join(format_latency(report)))
    say(f"measured on {report.device} in {report.dtype} with {report.threads} threads")


def _say_summary(summary: PruneSummary) -> None:
    weights = summary.weights
    before = f", {weights.kept_files} of them before" if weights.kept_files else ""
    files = count_noun(len(weights.files), "file")
    say(
        f"{weights.parameters:,} of {summary.parameters:,} stored numbers kept: {weights.bytes:,} "
        f"bytes in {files}{before}"
    )
    if summary.cuts_vocabulary and not summary.tokenizer_files:
        say("there is no tokenizer: the plan cuts the vocabulary, so that ids are other ones")
    for line in summary.limits:
        say(line)
