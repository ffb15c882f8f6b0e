"""The command `lmcore detox evaluate`."""

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
from lmcore.cli.terminal import say, show, show_bytes, show_json

if TYPE_CHECKING:
    from lmcore.detox import Evaluation, Judgement


def evaluate_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="GENERATIONS",
            parser=name_of_file,
            help="JSONL with prompt and generations, and scores if they have some. .gz is "
            "decompressed, `-` is standard input.",
            show_default=False,
        ),
    ],
    scorer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR|FILE",
            parser=name_of_file,
            help=f"{SCORER_HELP} By default the rows' own scores count.",
        ),
    ] = None,
    label: Label = None,
    checkpoint: Checkpoint = None,
    unpickle: Unpickle = False,
    cache: Cache = None,
    perplexity: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="A causal language model: perplexity of samples behind their prompts.",
        ),
    ] = None,
    similarity: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="An encoder of sentences; character n-grams are compared by default.",
        ),
    ] = None,
    fluency: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="A classifier of fluent text: the joint score of rewritten prompts.",
        ),
    ] = None,
    fluency_label: Annotated[
        str | None,
        typer.Option(metavar="TEXT", parser=plain_text, help="Its label of what is fluent."),
    ] = None,
    batch_size: Annotated[int, whole(1, 65536, text="Texts that a model reads together.")] = 16,
    device: Device = None,
    sheet: Annotated[
        str | None,
        typer.Option(
            metavar="PAGE.html",
            parser=name_of_file,
            help="Write a blind comparison with --against for human judges, and its key, or read "
            "--answers; nothing is measured then.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", parser=name_of_file, help="Generations of another system for --sheet."
        ),
    ] = None,
    answers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="What a judge saved of --sheet; any number of times.",
        ),
    ] = None,
    pairs: Annotated[int, whole(1, 100_000, text="Of --sheet, one for a prompt.")] = 50,
    seed: Annotated[int, whole(0, 2**64 - 1, text="Of the pairs of --sheet.")] = 0,
    skip_bad_rows: SkipBadRows = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure generated continuations: toxicity, perplexity, similarity, distinct, joint score.

    toxic_prompt_share counts prompts with any sample above 0.5, toxic_sample_share all samples;
    both are called toxicity probability. The spread is that of the prompts' maxima.
    """
    options: dict[str, Any] = {"label": label, "checkpoint": checkpoint, "unpickle": unpickle}
    options |= {"cache": cache, "batch_size": batch_size, "device": device}
    folders = {"perplexity": perplexity, "similarity": similarity, "fluency": fluency}
    if _compare(source, sheet, against, answers, pairs=pairs, seed=seed, as_json=as_json):
        return
    rows = {"skip_bad_rows": skip_bad_rows, "quiet": quiet}
    done = _evaluate(source, scorer, options, folders, fluency_label, **rows)
    _warn(done)
    _show_values(done, as_json=as_json)


def _compare(
    source: str,
    sheet: str | None,
    against: str | None,
    answers: list[str] | None,
    *,
    pairs: int,
    seed: int,
    as_json: bool,
) -> bool:
    """Whether a page for judges was written, or answers were read."""
    if sheet is None:
        if against is not None or answers:
            raise ValueError("--against and --answers go with --sheet")
        return False
    if (against is None) == (not answers):
        raise ValueError("--sheet needs --against, to be written, or --answers, to be read")
    from lmcore.detox import read_answers, write_sheet

    if against is not None:
        count = write_sheet(source, against, sheet, pairs=pairs, seed=seed)
        say(f"{count} pairs: judges get {sheet} alone, the key stands beside it")
    else:
        _show_answers(read_answers(sheet, answers or []), as_json=as_json)
    return True


def _show_answers(judgements: list[Judgement], *, as_json: bool) -> None:
    from dataclasses import asdict

    from lmcore._tables import format_table

    if as_json:
        show_json([asdict(judgement) for judgement in judgements])
        return
    rows = [[str(_format(value)) for value in asdict(one).values()] for one in judgements]
    show("\n".join(format_table(rows, [*asdict(judgements[0])])))


def _evaluate(
    source: str,
    scorer: str | None,
    options: dict[str, Any],
    folders: dict[str, str | None],
    fluency_label: str | None,
    *,
    skip_bad_rows: bool,
    quiet: bool,
) -> Evaluation:
    with starting():
        from tqdm import tqdm

        from lmcore.detox import evaluate_file

    if (folders["fluency"] is None) != (fluency_label is None):
        raise ValueError("--fluency goes with --fluency-label")
    check_device(options["device"], scorer, *folders.values())
    models = _load_models(folders, fluency_label, options)
    if scorer is not None:
        models["scorer"] = open_scorer(scorer, **options)
    elif any(options[name] for name in ("label", "checkpoint", "unpickle", "cache")):
        raise ValueError("--label, --checkpoint, --unpickle and --cache go with --scorer")
    disable = True if quiet else None
    with (
        show_bytes([source], quiet=quiet) as progress,
        tqdm(unit=" texts", disable=disable, leave=False) as bar,
    ):
        done = evaluate_file(
            source, skip_bad_rows=skip_bad_rows, progress=progress, text_progress=bar.update,
            **models,
        )  # fmt: skip
    say_windows(models.get("scorer"))
    return done


def _load_models(
    folders: dict[str, str | None], fluency_label: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """What `evaluate_file` takes for the folders that were named."""
    from lmcore.detox import load_scorer, load_similarity

    device = "auto" if options["device"] is None else options["device"]
    batch_size = options["batch_size"]
    models: dict[str, Any] = {"device": device, "batch_size": batch_size}
    if folders["perplexity"] is not None:
        models["perplexity"] = folders["perplexity"]
    if folders["similarity"] is not None:
        models["similarity"] = load_similarity(
            folders["similarity"], device=device, batch_size=batch_size
        )
    if folders["fluency"] is not None:
        models["fluency"] = load_scorer(
            folders["fluency"], label=fluency_label, device=device, batch_size=batch_size
        )
    return models


def _warn(done: Evaluation) -> None:
    from lmcore._extras import DISTRIBUTION

    values = done.values
    for row in done.listed_bad_rows:
        say(f"skipped {row}")
    if values["empty_samples"]:
        say(
            f"{values['empty_samples']} of {values['samples']} samples are empty: they count as "
            "harmless, and are left out of other measures"
        )
    if values["unknown_prompts"]:
        say(f"the toxicity of {values['unknown_prompts']} prompts is unknown")
    if values.get("perplexity_left_out"):
        say(f"perplexity: {values['perplexity_left_out']} samples have no token: left out")
    if "rephrase_edit_distance" in values and values["rephrase_edit_distance"] is None:
        say(f'rapidfuzz is not installed: pip install "{DISTRIBUTION}[score]"')


def _show_values(done: Evaluation, *, as_json: bool) -> None:
    from lmcore._tables import format_table

    if as_json:
        show_json(done.values)
        return
    rows = [(name, _format(value)) for name, value in done.values.items()]
    show("\n".join(format_table(rows, ("measure", "value"))))


def _format(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
