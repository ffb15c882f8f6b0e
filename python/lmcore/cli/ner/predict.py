"""The command `lmcore ner predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    Device,
    Quiet,
    SkipBadRows,
    Threads,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from lmcore.ner.prediction import PredictionSummary


def predict_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            parser=name_of_file,
            help="Folder of a model and its tokenizer, of an adapter, or of a run of `train`.",
            show_default=False,
        ),
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN.jsonl",
            parser=name_of_file,
            help="Rows of `ner data`, or with words or text. A name that ends with .gz is "
            "compressed, `-` is standard input or output.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT.jsonl",
            parser=name_of_file,
            help="The same rows with prediction, predicted_labels and entities.",
            show_default=False,
        ),
    ],
    types: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE,TYPE",
            parser=plain_text,
            help="What entities may be in rows that do not say it.",
        ),
    ] = None,
    batch_size: Annotated[int, whole(1, 65536, text="Sentences that are generated together.")] = 8,
    num_beams: Annotated[int, whole(1, 1024, text="Hypotheses of each; 1 is greedy.")] = 1,
    constrained: Annotated[
        bool,
        typer.Option("--constrained", help="Copy the words and choose among legal labels alone."),
    ] = False,
    max_source_tokens: Annotated[
        int, whole(8, MOST, text="Of an instruction; longer sentences are cut into windows.")
    ] = 640,
    max_new_tokens: Annotated[
        int, whole(1, MOST, text="Of a generated text; with --constrained it is as long as needed.")
    ] = 640,
    overlap: Annotated[int, whole(0, MOST, text="Words that two windows share.")] = 16,
    device: Device = None,
    threads: Threads = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where OUT.jsonl ended, or anew.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Write what a model says of each sentence: text, labels, entities with a confidence.

    Rows stand in the order of the input; windows of `ner data` become sentences again. A killed
    run goes on where it was.
    """
    generation = {
        "batch_size": batch_size, "num_beams": num_beams, "constrained": constrained,
        "max_source_tokens": max_source_tokens, "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    options: dict[str, Any] = {"overlap_words": overlap, "skip_bad_rows": skip_bad_rows}
    options |= {"resume": resume, "types": _read_types(types), "device": device, "quiet": quiet}
    _say_summary(_predict(model, source, target, generation, limit_threads(threads), **options))


def _read_types(types: str | None) -> list[str] | None:
    if types is None:
        return None
    found = [name.strip() for name in types.split(",") if name.strip()]
    if not found:
        raise ValueError("--types must name at least one entity type: got none")
    return found


def _predict(
    name: str,
    source: str,
    target: str,
    generation: dict[str, Any],
    threads: int | None,
    *,
    device: str | None,
    quiet: bool,
    **options: Any,
) -> PredictionSummary:
    with starting():
        from tqdm import tqdm

        from lmcore._files import find_output
        from lmcore.ner.generation import Generation
        from lmcore.ner.models import load_model, load_tokenizer
        from lmcore.ner.prediction import predict_file
        from lmcore.training.processes import find_device, use_threads

    if not Path(name).is_dir():  # a name of the hub would be asked for there
        raise ValueError(f"{name}: no such folder of a model")
    if target != "-":
        find_output(target, [] if source == "-" else [source])
    chosen = find_device("auto" if device is None else device)
    tokenizer = load_tokenizer(name)
    model = load_model(name).to(chosen)
    bar = tqdm(unit=" sentences", disable=True if quiet else None, leave=False)
    with use_threads(threads), bar:
        return predict_file(
            model, tokenizer, source, target,
            generation=Generation(**generation), progress=bar.update, **options,
        )  # fmt: skip


def _say_summary(summary: PredictionSummary) -> None:
    for row in summary.listed_bad_rows:
        say(f"skipped {row}")
    counts = summary.counts
    resumed = f", {summary.resumed_rows} of them before" if summary.resumed_rows else ""
    say(
        f"{summary.rows} rows predicted{resumed}, {summary.bad_rows} skipped: "
        f"{counts.sentences} sentences, {counts.entities} entities"
    )
    if counts.cut_sentences:
        say(f"{counts.cut_sentences} sentences were cut into {counts.windows} windows")
    if counts.truncated_sources:
        say(f"{counts.truncated_sources} instructions were truncated: the model read a beginning")
    if counts.truncated_outputs:
        say(f"{counts.truncated_outputs} generated texts were truncated before their end")
    if counts.dropped_characters:
        say(
            f"{counts.dropped_characters} of {counts.characters} characters "
            f"({counts.dropped_share:.1%}) cannot be written by the model's tokenizer"
        )
