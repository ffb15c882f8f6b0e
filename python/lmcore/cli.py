"""The command `lmcore`."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lmcore
from lmcore.ops.entities import SCHEMES

if TYPE_CHECKING:
    from lmcore.ner import BackTokenizer
    from lmcore.recsys.backbone import SequenceModel
    from lmcore.recsys.data import IdMap, Interactions
    from lmcore.recsys.recipes import TrainConfig

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Six published language-model and recommendation systems.",
)
ner = typer.Typer(no_args_is_help=True, help="Named entities from generated text (GNER).")
app.add_typer(ner, name="ner")
recsys = typer.Typer(no_args_is_help=True, help="Sequential recommendation (UFNRec).")
app.add_typer(recsys, name="recsys")

_OUT_OF_MEMORY = re.compile("OutOfMemory|can't allocate memory")

_Scheme = Annotated[
    str,
    typer.Option(
        metavar="|".join(SCHEMES),
        help="How labels are read and entities compared: gner (normalised text and type, a set "
        "per sentence), universalner (the same per type), strict and conll (positions and "
        "type), iob2 (positions; only B- starts an entity).",
    ),
]
_Tokenizer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Compare with what this tokenizer (folder or name) makes of the words."
    ),
]
_SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="List rows that cannot be used and go on.")
]
_Threads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Number of threads; all cores by default.")
]

_Data = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Interactions: `user item` lines, `user item item ...` lines, or RecBole's .inter.",
        show_default=False,
    ),
]
_Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="auto|pairs|sequences|inter",
        help="Form of the data; auto looks at the name and the first line.",
    ),
]
_Model = Annotated[
    str,
    typer.Argument(
        metavar="DIR",
        help="Folder of a run, or a file of SASRec weights (.pth, .pt, .safetensors).",
        show_default=False,
    ),
]
_Heads = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Attention heads of a file of weights."),
]
_Device = Annotated[
    str | None, typer.Option(metavar="cpu|cuda|auto", help="Where to compute; auto by default.")
]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(lmcore.__version__)
        raise typer.Exit


@ner.command("score")
def score_command(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="JSONL: one object per row.", show_default=False),
    ],
    scheme: _Scheme = SCHEMES[0],
    html: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write a page with the worst sentences side by side."),
    ] = None,
    worst: Annotated[
        int, typer.Option(min=0, metavar="N", help="Worst sentences per data set on the page.")
    ] = 20,
    tokenizer: _Tokenizer = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
    skip_bad_rows: _SkipBadRows = False,
    threads: _Threads = None,
) -> None:
    """Score files of predictions: precision, recall and F1 per data set, and how texts matched.

    A row holds label_list, prediction, and words and labels (at the top or in "instance").
    "dataset" names its data set; without it, the file's name does.
    """
    from lmcore._files import write_text
    from lmcore.ner import score_files
    from lmcore.ner.report import format_table, render_html

    with _failures_as_lines():
        back_tokenize = _load_tokenizer(tokenizer)
        with _progress(files) as progress:
            scores = score_files(
                files,
                scheme=scheme,
                threads=threads,
                worst=worst if html else 0,
                skip_bad_rows=skip_bad_rows,
                back_tokenize=back_tokenize,
                progress=progress,
            )
        if not scores.datasets:
            first = scores.listed_bad_rows[0]
            raise ValueError(f"none of {scores.bad_rows} rows can be used; the first: {first}")
        if html:
            write_text(html, render_html(scores))
    typer.echo(
        json.dumps(scores.to_dict(), ensure_ascii=False) if as_json else format_table(scores)
    )


@ner.command("align")
def align_command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IN.jsonl OUT.jsonl]",
            help="Rows with words or text, label_list and prediction; one aligned row for each.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="One sentence instead of files.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Its entity types, separated by commas.")
    ] = None,
    prediction: Annotated[str | None, typer.Option(help="What the model generated for it.")] = None,
    scheme: _Scheme = SCHEMES[0],
    tokenizer: _Tokenizer = None,
    skip_bad_rows: _SkipBadRows = False,
    threads: _Threads = None,
) -> None:
    """Turn generated text into labels and entities with offsets.

    Offsets count characters of the text, or of the words joined with spaces.
    """
    from lmcore.ner import align_file, align_row

    with _failures_as_lines():
        if not files:
            if text is None or labels is None or prediction is None:
                raise ValueError(
                    "give IN.jsonl and OUT.jsonl, or --text, --labels and --prediction"
                )
            if tokenizer is not None or skip_bad_rows or threads is not None:
                raise ValueError("--tokenizer, --skip-bad-rows and --threads go with files")
            label_list = [label.strip() for label in labels.split(",") if label.strip()]
            row = {"text": text, "label_list": label_list, "prediction": prediction}
            typer.echo(json.dumps(align_row(row, scheme), ensure_ascii=False))
            return
        if len(files) != 2 or not text is labels is prediction is None:
            raise ValueError("give IN.jsonl and OUT.jsonl, or --text, --labels and --prediction")
        back_tokenize = _load_tokenizer(tokenizer)
        with _progress(files[:1]) as progress:
            rows, skipped, listed = align_file(
                files[0],
                files[1],
                scheme,
                threads=threads,
                skip_bad_rows=skip_bad_rows,
                back_tokenize=back_tokenize,
                progress=progress,
            )
    for bad_row in listed:
        typer.echo(f"skipped {bad_row}", err=True)
    typer.echo(f"{rows} rows aligned, {skipped} skipped", err=True)


@recsys.command("train")
def train_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="plain, representation, reversal, consistency (the complete UFNRec) or patient.",
            show_default=False,
        ),
    ],
    data: _Data,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Where the model, its log and its state go.", show_default=False
        ),
    ],
    backbone: Annotated[
        str | None, typer.Option(metavar="sasrec|gru4rec|fmlp", help="The sequence model.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="When to end; after 201 by default.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of everything random; 0 by default.")
    ] = None,
    device: _Device = None,
    threads: _Threads = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another setting of the recipe, any number of times; `recsys recipe` lists them.",
        ),
    ] = None,
    data_format: _Format = "auto",
    skip_bad_rows: _SkipBadRows = False,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Go on from DIR's state, or start anew."),
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train a sequential recommender; a killed or interrupted run goes on where it was.

    The last item of each user is kept for testing, the one before it for validation. DIR gets
    the model of the best epoch in validation, config.json, id_map.json, recipe.json, log.jsonl
    and checkpoint.pt. Under torchrun all processes share each batch.
    """
    with _failures_as_lines():
        from lmcore.recsys.data import leave_one_out
        from lmcore.recsys.train import train

        is_first = os.environ.get("RANK", "0") == "0"
        quiet = quiet or not is_first
        options = {
            "backbone": backbone, "epochs": epochs, "seed": seed, "device": device,
            "threads": threads,
        }  # fmt: skip
        config = _make_config(recipe, options, settings or [])
        split = leave_one_out(_read_interactions(data, data_format, skip_bad_rows, quiet=quiet))
        if not quiet and split.training_only_count:
            count = split.training_only_count
            typer.echo(f"{count} users have fewer than 3 items: for training only", err=True)
        result = train(config, split, out, resume=resume, progress=not quiet, data_path=data)
        summary = {
            "out": str(result.folder),
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            config.metric: result.best_value,
        }
    if is_first:
        typer.echo(json.dumps(summary))


@recsys.command("recipe")
def recipe_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="One of the names that `train` takes.")
    ] = "plain",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another setting.")
    ] = None,
) -> None:
    """Print the settings of a recipe as JSON."""
    with _failures_as_lines():
        from lmcore.training.config import config_to_dict

        typer.echo(json.dumps(config_to_dict(_make_config(recipe, {}, settings or [])), indent=2))


@recsys.command("evaluate")
def evaluate_command(
    model: _Model,
    data: _Data,
    protocol: Annotated[
        str,
        typer.Option(metavar="full|sampled", help="Rank among all items, or among 100 drawn ones."),
    ] = "full",
    split: Annotated[
        str, typer.Option(metavar="valid|test", help="Which of each user's last items.")
    ] = "test",
    ties: Annotated[
        str,
        typer.Option(
            metavar="average|optimistic|pessimistic", help="How items of equal scores count."
        ),
    ] = "average",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the drawn items.")] = 0,
    heads: _Heads = 1,
    device: _Device = None,
    threads: _Threads = None,
    data_format: _Format = "auto",
    skip_bad_rows: _SkipBadRows = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Rank each user's held-out item: HR, NDCG and MRR.

    Item ids are read by DIR's id_map.json; without one, as with weights of others, they are the
    rows of the model's table.
    """
    with _failures_as_lines():
        from lmcore.recsys.data import leave_one_out
        from lmcore.recsys.evaluate import evaluate, load_model

        trained = load_model(model, num_attention_heads=heads, device=device or "auto")
        ids = _find_ids(model, trained)
        interactions = _read_interactions(data, data_format, skip_bad_rows, ids, quiet=as_json)
        result = evaluate(
            trained,
            leave_one_out(interactions),
            split=split,
            protocol=protocol,
            ties=ties,
            seed=seed,
            threads=threads,
        )
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
        return
    typer.echo(f"{result.split}, {result.protocol}: {result.users} users, {result.ties} with ties")
    for name, value in result.metrics.items():
        typer.echo(f"{name:8}{value:.4f}")


@recsys.command("recommend")
def recommend_command(
    model: _Model,
    users: Annotated[
        list[str],
        typer.Argument(
            metavar="USERS", help="Ids of users as in the data, or `all`.", show_default=False
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Their interactions; those of the training by default."),
    ] = None,
    count: Annotated[int, typer.Option("--top", "-k", min=1, metavar="K")] = 10,
    heads: _Heads = 1,
    device: _Device = None,
    data_format: _Format = "auto",
    skip_bad_rows: _SkipBadRows = False,
) -> None:
    """Print each user's best items that are not in the history, one JSON object for a user."""
    with _failures_as_lines():
        from lmcore.recsys.evaluate import load_model
        from lmcore.recsys.recommend import recommend

        source = data or _find_data(model)
        trained = load_model(model, num_attention_heads=heads, device=device or "auto")
        ids = _find_ids(model, trained)
        interactions = _read_interactions(source, data_format, skip_bad_rows, ids, quiet=True)
        chosen = None if users == ["all"] else users
        for recommendation in recommend(trained, interactions, chosen, count=count):
            typer.echo(json.dumps(recommendation.to_dict(), ensure_ascii=False))


@app.command("reproduce")
def reproduce_command(
    only: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Only these systems or claims.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions with different seeds.")] = 3,
    full: Annotated[bool, typer.Option("--full", help="Larger samples; takes longer.")] = False,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where the report goes.")] = "report",
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 1 if a verdict is not the README's; needs two seeds."
        ),
    ] = False,
) -> None:
    """Measure the papers' claims here: a table, and FOLDER/index.html with plots."""
    from lmcore.reproduce import reproduce
    from lmcore.reproduce.report import format_table

    with _failures_as_lines():
        if strict and seeds < 2:
            raise ValueError(f"--strict needs --seeds 2 or more, for a verdict: got {seeds}")
        names = only.split(",") if only else None
        rows = reproduce(names, seeds=seeds, quick=not full, out=Path(out), progress=True)
    typer.echo(format_table(rows))
    typer.echo(f"\nreport: {Path(out) / 'index.html'}")
    if strict and any(row.verdict != row.expected for row in rows):
        raise typer.Exit(1)


def _make_config(recipe: str, options: dict[str, Any], settings: list[str]) -> TrainConfig:
    """The recipe's settings, changed by options that were given and by `--set`."""
    from lmcore.recsys.recipes import RECIPES
    from lmcore.training.config import override

    if recipe not in RECIPES:
        raise ValueError(f"RECIPE must be one of {', '.join(RECIPES)}: got {recipe!r}")
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    return override(RECIPES[recipe](), [*settings, *given])


def _read_interactions(
    path: str, data_format: str, skip_bad_rows: bool, id_map: IdMap | None = None, *, quiet: bool
) -> Interactions:
    """The interactions of a file, with the item ids of a map if one is given."""
    from lmcore.recsys.data import read_interactions

    found = read_interactions(path, format=data_format, skip_bad_rows=skip_bad_rows, id_map=id_map)
    for row in found.report.listed_skipped:
        typer.echo(f"skipped {row}", err=True)
    if not quiet:
        numbers = {k: v for k, v in found.report.to_dict().items() if isinstance(v, int) and v}
        typer.echo(", ".join(f"{v} {k.replace('_', ' ')}" for k, v in numbers.items()), err=True)
    return found


def _find_ids(path: str, model: SequenceModel) -> IdMap:
    """The ids that a model was trained with: its folder's, or the rows of its table."""
    from lmcore.recsys.data import IdMap

    saved = Path(path) / "id_map.json"
    return IdMap.load(saved) if saved.is_file() else IdMap.identity(0, model.config.item_count)


def _find_data(model: str) -> str:
    """The file that a run was trained on."""
    recipe = Path(model) / "recipe.json"
    if not recipe.is_file():
        raise ValueError(f"{model}: holds no recipe.json that names the data; give --data FILE")
    try:
        path = json.loads(recipe.read_text(encoding="utf-8"))["data"]["path"]
        if not isinstance(path, str | None):
            raise TypeError(f"data.path is no text: {path!r}")
    except KeyError as error:
        raise ValueError(f"{recipe}: {error} is missing; give --data FILE") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{recipe}: not the recipe of a run: {error}") from None
    if path is None or not Path(path).is_file():
        raise ValueError(f"{recipe}: the data {path} is not there; give --data FILE")
    return str(path)


def _load_tokenizer(name: str | None) -> BackTokenizer | None:
    if name is None:
        return None
    if name.startswith((".", "~", os.sep)) and not Path(name).is_dir():
        raise ValueError(f"--tokenizer {name}: no such folder")
    from lmcore.ner import BackTokenizer

    try:
        return BackTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--tokenizer {name}: {reason}") from None


@contextmanager
def _progress(paths: list[str]) -> Iterator[Callable[[int], None]]:
    """A bar over the bytes of all files, where somebody is looking."""
    from tqdm import tqdm

    sizes = [Path(path).stat().st_size if Path(path).is_file() else 0 for path in paths]
    with tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=None, leave=False) as bar:
        finished, last = 0, 0

        def update(done: int) -> None:
            nonlocal finished, last
            if done < last:  # the next file began
                finished += last
            last = done
            bar.update(finished + done - bar.n)

        yield update


@contextmanager
def _failures_as_lines() -> Iterator[None]:
    """One line on standard error and exit code 2, or 130 after Ctrl-C; no traceback."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("lmcore: interrupted", err=True)
        raise typer.Exit(128 + signal.SIGINT) from None
    except (FloatingPointError, ImportError, OSError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename}: {error.strerror}"
        else:
            message = str(error)
        typer.echo("lmcore: " + message.replace("\n", "\\n"), err=True)
        raise typer.Exit(2) from None
    except (MemoryError, RuntimeError) as error:
        # torch has a type of its own for a GPU, and none for the CPU.
        names = (type(error).__name__, str(error))
        if isinstance(error, MemoryError) or any(map(_OUT_OF_MEMORY.search, names)):
            reason = str(error).strip().splitlines() or [""]
            typer.echo(f"lmcore: out of memory: {reason[0]}", err=True)
            raise typer.Exit(2) from None
        raise


def main() -> None:
    """Runs the command line."""
    app(prog_name="lmcore")


if __name__ == "__main__":
    main()
