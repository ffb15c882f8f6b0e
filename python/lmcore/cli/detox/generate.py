"""The command `lmcore detox generate`."""

from __future__ import annotations

from pathlib import Path
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
    from lmcore.detox import WritingSummary


def generate_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            parser=name_of_file,
            help="Folder of a run of `train`, of a model and its tokenizer, or of an adapter.",
            show_default=False,
        ),
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="PROMPTS",
            parser=name_of_file,
            help="JSONL with text or prompt, rows of RealToxicityPrompts, or lines (.txt). .gz is "
            "decompressed, `-` is standard input.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            parser=name_of_file,
            help="The rows with generations and chains; `-` for standard output.",
            show_default=False,
        ),
    ],
    samples: Annotated[int, whole(1, 2**20, text="Of each prompt.")] = 25,
    grammar: Annotated[
        str,
        typer.Option(metavar="paper|student", parser=plain_text, help="As the model was trained."),
    ] = "paper",
    seed: Annotated[int, whole(0, 2**64 - 1, text="Of the samples.")] = 0,
    top_p: Annotated[
        float, decimal(0.0, 1.0, text="Least share of probability that is sampled from; not 0.")
    ] = 0.9,
    temperature: Annotated[
        float, decimal(0.0, 1000.0, text="By which scores are divided; not 0.")
    ] = 1.0,
    max_new_tokens: Annotated[int, whole(1, 2**20, text="Of a chain.")] = 280,
    batch_size: Annotated[int, whole(1, 65536, text="Chains that are written together.")] = 64,
    field: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            parser=plain_text,
            help="Key of the text in a row; text or prompt by default.",
        ),
    ] = None,
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|jsonl|realtoxicityprompts|lines",
            parser=plain_text,
            help="Form of PROMPTS; auto looks at the name and the rows.",
        ),
    ] = "auto",
    device: Device = None,
    threads: Threads = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where OUT ended, or anew.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Write chains and continuations for prompts, with a model that `train` made.

    Rows stand in the order of the input. What is no chain is counted by what is missing. A killed
    run goes on where it was, and ends with the same bytes.
    """
    sampling = {
        "samples": samples, "grammar": grammar, "top_p": top_p, "temperature": temperature,
        "max_new_tokens": max_new_tokens, "batch_size": batch_size,
    }  # fmt: skip
    options: dict[str, Any] = {"seed": seed, "form": data_format, "field": field}
    options |= {"resume": resume, "skip_bad_rows": skip_bad_rows}
    given: dict[str, Any] = {"device": device, "threads": limit_threads(threads), "quiet": quiet}
    _say_summary(_generate(model, source, target, sampling, options, **given))


def _generate(
    model: str,
    source: str,
    target: str,
    sampling: dict[str, Any],
    options: dict[str, Any],
    *,
    device: str | None,
    threads: int | None,
    quiet: bool,
) -> WritingSummary:
    with starting():
        from tqdm import tqdm

        from lmcore._files import find_output
        from lmcore.detox import ChainSampling, generate_file, load_writer
        from lmcore.detox.data import find_form
        from lmcore.training.processes import use_threads

    find_form(source, options["form"])
    settings = ChainSampling(**sampling)
    if not Path(model).is_dir():  # a name of the hub would be asked for there
        raise ValueError(f"{model}: no such folder of a model")
    if target != "-":
        find_output(target, [] if source == "-" else [source])
    writer = load_writer(model, settings, device="auto" if device is None else device)
    bar = tqdm(unit=" prompts", disable=True if quiet else None, leave=False)
    with use_threads(threads), bar:
        return generate_file(writer, source, target, progress=bar.update, **options)


def _say_summary(summary: WritingSummary) -> None:
    for row in summary.listed_bad_rows:
        say(f"skipped {row}")
    resumed = f", {summary.resumed_rows} of them before" if summary.resumed_rows else ""
    say(
        f"{summary.rows} prompts continued{resumed}, {summary.bad_rows} skipped: "
        f"{summary.chains} chains, {summary.toxic} call their prompt toxic"
    )
    for problem, count in sorted(summary.unparsable.items()):
        say(f"{count} samples are no chain: {problem}")
    if summary.without_continuation:
        say(f"{summary.without_continuation} chains say that there is no continuation")
    if summary.cut:
        say(f"{summary.cut} samples ended for want of room")
    if summary.latency is not None:
        say(
            f"a chain took {summary.seconds_per_chain} seconds, {summary.latency} times a plain "
            "continuation of 20 tokens"
        )
