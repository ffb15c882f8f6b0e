"""Scores of a model's parts, as `lmcore compression plan` asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcore.cli.failures import starting
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from lmcore.compression import Plan, Scores

WIDTHS = ("hidden", "heads", "ffn")


def check_scoring(model: str, method: str, sizes: dict[str, Any], options: dict[str, Any]) -> None:
    """Checks that what is asked for goes together, before anything is computed.

    Args:
        model: folder of the model.
        method: of choosing.
        sizes: that are asked for, by name.
        options: `text`, `tokens` and `scores`.

    Raises:
        ValueError: it does not.
    """
    with starting():
        from lmcore.compression.choosing import METHODS

    if method not in METHODS:
        raise ValueError(f"choose must be one of {', '.join(METHODS)}: got {method!r:.60}")
    if method in ("random", "magnitude") and (options["text"] or options["tokens"]):
        raise ValueError(f"--text and --tokens are for methods that read: {method} does not")
    if options["tokens"] and not options["text"]:
        raise ValueError("--tokens and --text belong together: got one of them")
    if method == "random":
        if options["scores"] is not None:
            raise ValueError("--scores is for methods that score: random does not")
        return
    if method == "learned":
        if options["scores"] is None or options["text"]:
            raise ValueError(
                "learned needs --scores, the file that `learn-masks` wrote, and no --text"
            )
        return
    widths = [name for name in WIDTHS if sizes[name] is not None]
    if method == "block_influence" and widths:
        raise ValueError(
            f"block_influence scores layers alone: choose --{widths[0]} in a stage of its own, "
            "with --after"
        )
    if method != "block_influence" and not widths:
        raise ValueError(f"{method} scores widths: expected one of --hidden, --heads and --ffn")
    if not Path(model).is_dir():
        raise ValueError(f"{model}: {method} needs the folder of the model")
    has_scores = options["scores"] is not None and Path(options["scores"]).exists()
    if method != "magnitude" and options["text"] is None and not has_scores:
        raise ValueError(f"{method} needs --text, or --scores that are there already")


def find_scores(
    model: str, method: str, plan: Plan, options: dict[str, Any], *, quiet: bool
) -> Scores | None:
    """Returns the scores that a method gives, from a file that is there or made anew.

    Args:
        model: folder of the model.
        method: of choosing.
        plan: of the model.
        options: `text`, `tokens`, `batch_size` and `scores`.
        quiet: whether no progress is shown.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: scores cannot be made, or those of the file are others.
    """
    if method == "random":
        return None
    with starting():
        from lmcore.compression.importance import TOKENS, Calibration, find_scores

    calibration, tokens, file = None, options["tokens"], options["scores"]
    if options["text"] is not None:
        size = options["batch_size"]
        calibration = Calibration(text=options["text"], tokens=tokens or TOKENS, batch_size=size)
    with _progress("B" if method == "magnitude" else "token", quiet) as progress:
        stored, was_read = find_scores(
            model, method, calibration, file, plan=plan, most_tokens=tokens, progress=progress
        )
    of = f" of {stored.tokens:,} tokens" if stored.tokens else ""
    where = "" if file is None else f", {'read from' if was_read else 'written to'} {file}"
    say(f"scores: {method}{of}{where}")
    return stored.scores


@contextmanager
def _progress(unit: str, quiet: bool) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(unit=unit, unit_scale=True, disable=True if quiet else None, leave=False) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update
