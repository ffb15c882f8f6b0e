"""Options of scorers that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.options import name_of_file, plain_text
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from lmcore.detox import Scorer

SCORER_HELP = (
    "Folder of `train-scorer` or of a sequence classifier, a file of toxic words, detoxify, or "
    "perspective (which ends on 2026-12-31)."
)

Label = Annotated[
    str | None,
    typer.Option(
        parser=plain_text,
        help="Of a classifier: which label counts; toxic or toxicity by default.",
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", parser=name_of_file, help="Weights of detoxify, beside its configuration."
    ),
]
Unpickle = Annotated[
    bool,
    typer.Option("--unpickle", help="Trust the checkpoint: reading this pickle can run code."),
]
Cache = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", parser=name_of_file, help="Keep scores here: no text is scored twice."
    ),
]


def open_scorer(
    name: str,
    *,
    label: str | None,
    checkpoint: str | None,
    unpickle: bool,
    cache: str | None,
    device: str | None,
    batch_size: int,
) -> Scorer:
    """Returns the scorer that was asked for, with its cache.

    Args:
        name: as `SCORER_HELP` says.
        label: of a classifier.
        checkpoint: of detoxify.
        unpickle: whether the checkpoint is trusted.
        cache: a file.
        device: of models.
        batch_size: of models.

    Raises:
        ImportError: a package of an extra is not installed.
        OSError: a file cannot be read.
        ValueError: there is no such scorer, or an option does not go with it.

    Example:
        >>> open_scorer("nothing", label=None, checkpoint=None, unpickle=False, cache=None,
        ...     device=None, batch_size=1)
        Traceback (most recent call last):
        ValueError: no scorer nothing: expected a folder, a file of lines, detoxify or perspective
    """
    from lmcore.detox import CachedScorer, load_scorer
    from lmcore.detox.perspective import ENDS

    options: dict[str, Any] = {"label": label, "checkpoint": checkpoint, "unpickle": unpickle}
    options |= {"device": "auto" if device is None else device, "batch_size": batch_size}
    scorer = load_scorer(name, **options)
    if name == "perspective":
        say(f"perspective ends on {ENDS}: `lmcore detox train-scorer` makes a scorer that does not")
    return scorer if cache is None else CachedScorer(scorer, cache)


def check_device(device: str | None, scorer: str | None, *folders: str | None) -> None:
    """Checks that a device which is asked for has something to run.

    Args:
        device: as it was given.
        scorer: as it was given.
        folders: of other models.

    Raises:
        ValueError: there is no model.

    Example:
        >>> check_device("cpu", "perspective")
        Traceback (most recent call last):
        ValueError: --device goes with a model: got the device 'cpu'
    """
    from lmcore.detox.scorers import is_model

    models = [name for name in folders if name is not None]
    if device is not None and not models and not (scorer is not None and is_model(scorer)):
        raise ValueError(f"--device goes with a model: got the device {device!r:.60}")


def say_windows(scorer: object) -> None:
    """Says how many texts were longer than a model's window.

    Args:
        scorer: after its work.

    Example:
        >>> say_windows(len)
    """
    windowed = getattr(getattr(scorer, "scorer", scorer), "windowed_texts", 0)
    if windowed:
        say(f"{windowed} texts are longer than the model's window and were read in several")
