"""The command `lmcore detox score`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.detox.scorer_options import (
    SCORER_HELP,
    Cache,
    Checkpoint,
    Label,
    Unpickle,
    check_device,
    open_scorer,
    say_windows,
)
from lmcore.cli.failures import starting
from lmcore.cli.options import (
    AsJson,
    Device,
    Quiet,
    SkipBadRows,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import say, show_json

if TYPE_CHECKING:
    from lmcore.detox import ScoreSummary


def score_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            parser=name_of_file,
            help="JSONL with text or prompt, rows of RealToxicityPrompts, or lines (.txt). .gz is "
            "decompressed, `-` is standard input.",
            show_default=False,
        ),
    ],
    scorer: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR|FILE", parser=name_of_file, help=SCORER_HELP, show_default=False
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT", parser=name_of_file, help="The rows with toxicity; `-` for standard out."
        ),
    ] = "-",
    words: Annotated[
        bool, typer.Option("--words", help="Also toxic_words: which words made the score.")
    ] = False,
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
            help="Form of FILE; auto looks at the name and the rows.",
        ),
    ] = "auto",
    label: Label = None,
    checkpoint: Checkpoint = None,
    unpickle: Unpickle = False,
    cache: Cache = None,
    batch_size: Annotated[int, whole(1, 65536, text="Texts that a model reads together.")] = 32,
    device: Device = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where OUT ended, or anew.")
    ] = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score how toxic texts are, from 0 to 1, and say which words made it so.

    Rows stand in the order of the input. A killed run goes on where it was. With --json the
    summary goes to standard output.
    """
    options: dict[str, Any] = {"label": label, "checkpoint": checkpoint, "unpickle": unpickle}
    options |= {"cache": cache, "device": device, "batch_size": batch_size}
    settings: dict[str, Any] = {"form": data_format, "field": field, "words": words}
    settings |= {"resume": resume, "skip_bad_rows": skip_bad_rows}
    _check_target(target, as_json=as_json)
    summary = _score(scorer, options, source, target, settings, quiet=quiet)
    _say_summary(summary, as_json=as_json)


def _check_target(target: str, *, as_json: bool) -> None:
    if as_json and target == "-":
        raise ValueError("--json prints the summary on standard output: name OUT for the rows")


def _score(
    name: str,
    options: dict[str, Any],
    source: str,
    target: str,
    settings: dict[str, Any],
    *,
    quiet: bool,
) -> ScoreSummary:
    with starting():
        from tqdm import tqdm

        from lmcore._files import find_output
        from lmcore.detox import score_file
        from lmcore.detox.data import find_form

    find_form(source, settings["form"])
    check_device(options["device"], name)
    if target != "-":
        find_output(target, [] if source == "-" else [source])
    scorer = open_scorer(name, **options)
    with tqdm(unit=" texts", disable=True if quiet else None, leave=False) as bar:
        summary = score_file(scorer, source, target, progress=bar.update, **settings)
    say_windows(scorer)
    return summary


def _say_summary(summary: ScoreSummary, *, as_json: bool) -> None:
    for row in summary.listed_bad_rows:
        say(f"skipped {row}")
    before = f", {summary.resumed_rows} of them before" if summary.resumed_rows else ""
    found = "" if summary.mean is None else f", mean {summary.mean:.4f}"
    say(
        f"{summary.rows} rows scored{before}, {summary.bad_rows} skipped: "
        f"{summary.toxic} of {summary.scored} above 0.5{found}"
    )
    if as_json:
        show_json(summary.to_dict())
