"""The command `lmcore detox train-scorer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import AsJson, Quiet, SkipBadRows, name_of_file, plain_text, whole
from lmcore.cli.terminal import say, show, show_bytes, show_json

if TYPE_CHECKING:
    from collections.abc import Mapping


def train_scorer_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            parser=name_of_file,
            help="JSONL, or CSV below a line of names, with text and label, score or toxic from 0 "
            "to 1; or rows of RealToxicityPrompts. .gz is decompressed, `-` is standard input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Where the scorer goes; one that is there is replaced.",
            show_default=False,
        ),
    ],
    field: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", parser=plain_text, help="Key or column of the text; text by default."
        ),
    ] = None,
    label_field: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            parser=plain_text,
            help="Key or column of the label; the one of label, score, toxic, toxicity by default.",
        ),
    ] = None,
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|jsonl|csv",
            parser=plain_text,
            help="Form of FILE; auto looks at the name.",
        ),
    ] = "auto",
    bits: Annotated[int, whole(1, 24, text="The model has 2 to this power weights.")] = 18,
    skip_bad_rows: SkipBadRows = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train the local scorer: word and character n-grams, calibrated, the same bytes each time.

    A fifth of the texts is held out, and the report says how well they are ranked (AUROC) and how
    far scores are from shares of toxic texts (expected calibration error). Chinese is read by
    character.
    """
    options = {"form": data_format, "field": field, "label_field": label_field, "bits": bits}
    report = _train(source, out, {**options, "skip_bad_rows": skip_bad_rows}, quiet=quiet)
    if as_json:
        show_json(dict(report))
    else:
        show(_format(report))


def _train(source: str, out: str, options: dict[str, Any], *, quiet: bool) -> Mapping[str, Any]:
    with starting():
        from tqdm import tqdm

        from lmcore.detox.ngram_training import train_file

    disable = True if quiet else None
    with (
        show_bytes([source], quiet=quiet) as progress,
        tqdm(unit=" steps", disable=disable, leave=False) as bar,
    ):

        def watch(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        scorer, left_out = train_file(
            source, out, progress=progress, training_progress=watch, **options
        )
    for row in left_out:
        say(f"skipped {row}")
    if scorer.report["auroc"] is None:
        say("AUROC is not defined: the texts that are held out are of one kind")
    return scorer.report


def _format(report: Mapping[str, Any]) -> str:
    from lmcore._tables import format_table

    rows = [(name, _show(value)) for name, value in report.items()]
    return "\n".join(format_table(rows, ("report", "value")))


def _show(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
