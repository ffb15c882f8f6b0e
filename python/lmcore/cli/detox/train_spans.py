"""The commands `lmcore detox train-spans` and `lmcore detox span-recipe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    Device,
    Out,
    Quiet,
    Resume,
    Settings,
    SkipBadRows,
    Threads,
    decimal,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import is_first_process, say, show_json

if TYPE_CHECKING:
    from lmcore.detox import Scorer
    from lmcore.detox.span_labels import LabelledTexts
    from lmcore.detox.span_recipes import SpanTrainConfig
    from lmcore.detox.tokenization import SegmentTokenizer


def train_spans_command(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            parser=name_of_file,
            help="Labelled texts: JSONL with content and score, one for each pair of tokens; "
            "SemEval-2021's CSV with spans and text; or texts for a scorer. .gz is compressed, `-` "
            "is standard input.",
            show_default=False,
        ),
    ],
    out: Out,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="segment_cnn|tiny",
            help="segment_cnn (the paper's; name a folder of BERT as --model), tiny (a small model "
            "from random weights, minutes on two cores).",
        ),
    ] = "segment_cnn",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of a BERT or a Segment-CNN to go on from; random weights by default.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR",
            parser=name_of_file,
            help="BERT's vocabulary (.txt) or a file of tokenizers; the model's by default.",
        ),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(metavar="FILE", parser=name_of_file, help="Such texts for validation."),
    ] = None,
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|pairs|semeval|texts",
            parser=plain_text,
            help="Form of the texts; auto looks at the name, and is texts with a scorer.",
        ),
    ] = "auto",
    scorer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            parser=name_of_file,
            help="Makes the labels of texts that have none; it sees each distinct pair once.",
        ),
    ] = None,
    threshold: Annotated[
        float, decimal(0.0, 1.0, text="A pair is toxic whose score is above.")
    ] = 0.5,
    epochs: Annotated[
        int | None, whole(1, 2**31 - 1, text="When to end; as the recipe says by default.")
    ] = None,
    seed: Annotated[
        int | None, whole(0, 2**64 - 1, text="Of everything random; as the recipe says by default.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    settings: Settings = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Train a Segment-CNN, which finds toxic pairs of tokens; a killed run goes on.

    DIR gets recipe.json, log.jsonl, states to go on from, models, and a link `best` to the best of
    them in validation, with its tokenizer. Under torchrun all processes share each batch.
    """
    options = {
        "model": model, "epochs": epochs, "loop.seed": seed, "device.device": device,
        "device.threads": limit_threads(threads),
    }  # fmt: skip
    config = _make_config(recipe, options, settings or [])
    reading = {"form": data_format, "threshold": threshold, "skip_bad_rows": skip_bad_rows}
    reading |= {"scorer": _load_scorer(scorer), "segment_size": config.segment_size}
    _train(config, (data, valid), out, tokenizer, reading, resume=resume, progress=not quiet)


def span_recipe_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="One of the names that `train-spans` takes.")
    ] = "segment_cnn",
    settings: Settings = None,
) -> None:
    """Print the settings of a recipe of `train-spans` as JSON."""
    with starting():
        from lmcore.training.config import config_to_dict

    show_json(config_to_dict(_make_config(recipe, {}, settings or [])), indent=2)


def _make_config(recipe: str, options: dict[str, Any], settings: list[str]) -> SpanTrainConfig:
    """The recipe's settings, changed by options that were given and by `--set`."""
    with starting():
        from lmcore.detox.span_recipes import SPAN_RECIPES
        from lmcore.training.config import choose_recipe

    return choose_recipe(SPAN_RECIPES, recipe, settings, options)


def _load_scorer(name: str | None) -> Scorer | None:
    with starting():
        from lmcore.detox import load_scorer

    return None if name is None else load_scorer(name)


def _train(
    config: SpanTrainConfig,
    files: tuple[str, str | None],
    out: str,
    tokenizer: str | None,
    reading: dict[str, Any],
    *,
    resume: bool,
    progress: bool,
) -> None:
    """Trains, and prints what came of it."""
    with starting():
        from lmcore.detox.span_training import find_tokenizer, train_spans

    is_first = is_first_process()
    own = find_tokenizer(tokenizer, config.model)
    found, valid = (_read(file, own, reading, progress=progress and is_first) for file in files)
    assert found is not None
    data_path, valid_path = (None if file == "-" else file for file in files)
    result = train_spans(
        config, found.examples, out, valid=valid.examples if valid else [], tokenizer=own,
        resume=resume, progress=progress and is_first, data_path=data_path, valid_path=valid_path,
    )  # fmt: skip
    if not is_first:
        return
    if result.cut.texts and not progress:  # which says it before the first step
        say(f"lmcore: {result.cut}")
    show_json(
        {
            "out": str(result.folder),
            "steps": result.steps,
            "best_step": result.best_step,
            config.loop.metric: result.best_value,
            "texts": len(found.examples),
            "bad_rows": found.bad_rows,
            "cut_texts": result.cut.texts,
            "scored_segments": found.distinct,
        }
    )


def _read(
    file: str | None, tokenizer: SegmentTokenizer, reading: dict[str, Any], *, progress: bool
) -> LabelledTexts | None:
    from tqdm import tqdm

    from lmcore.detox.span_labels import read_labelled

    if file is None:
        return None
    with tqdm(unit=" segments", disable=None if progress else True, leave=False) as bar:

        def watch(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = read_labelled(file, tokenizer, progress=watch, **reading)
    for row in found.listed_bad_rows if is_first_process() else ():
        say(f"skipped {row}")
    return found
