"""Scorers: any callable from texts to numbers from 0 to 1, and those that have a name.

| name | what it is |
| --- | --- |
| a folder of `train-scorer` | the default: n-grams, local, says which words made a score |
| another folder | any `AutoModelForSequenceClassification` of transformers |
| a file of lines | a lexicon: words and phrases that are toxic |
| `detoxify` | the package of that name, with a checkpoint that is here |
| `perspective` | Google's service, until it ends on 31 December 2026 |
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from lmcore._text import escape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMES = ("detoxify", "perspective")


class Scorer(Protocol):
    """Texts to numbers: 0 is harmless, 1 toxic.

    A function will do. A scorer whose results shall be kept on disk also has a `key`: a text that
    differs for scorers that differ.
    """

    def __call__(self, texts: Sequence[str], /) -> Sequence[float] | NDArray[Any]:
        """Returns a score from 0 to 1 for each text."""
        ...


class WordWeight(NamedTuple):
    """How much a word of a text counts."""

    start: int
    """In characters of the text."""
    end: int
    word: str
    """As it stands there."""
    weight: float
    """What it adds: to the log-odds of n-grams, 1 for a word of a lexicon."""


@runtime_checkable
class Explainer(Protocol):
    """A scorer that says which words made a score."""

    def explain(self, text: str) -> list[WordWeight]:
        """Returns the words of a text and what each adds to its score."""
        ...


def check_scores(
    scores: Any, texts: Sequence[str], *, name: str = "the scorer"
) -> NDArray[np.float64]:
    """Returns what a scorer returned as float64, checked.

    Args:
        scores: what it returned, N numbers from 0 to 1.
        texts: the N texts that it was given.
        name: how errors call it.

    Raises:
        TypeError: it returned something that is no number.
        ValueError: another number of values, NaN, or one outside of 0 to 1; the text names its
            place and begins what was scored there.

    Example:
        >>> check_scores([0.5, float("nan")], ["a", "b"])
        Traceback (most recent call last):
        ValueError: the scorer returned nan for texts[1], 'b': expected a number from 0 to 1
    """
    import numpy as np

    try:
        array = np.asarray(scores)
    except (TypeError, ValueError):
        array = np.array([None])
    if not array.size and not len(texts):
        return np.zeros(0)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must return numbers: got {type(scores).__name__}")
    if array.shape != (len(texts),):
        raise ValueError(f"{name} must return {len(texts)} numbers: got the shape {array.shape}")
    values = array.astype(np.float64)
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if bad.size:
        place = int(bad[0])
        shown = escape(texts[place][:60])
        raise ValueError(
            f"{name} returned {float(values[place])} for texts[{place}], {shown!r}: "
            "expected a number from 0 to 1"
        )
    return values


def load_scorer(
    spec: str | os.PathLike[str],
    *,
    label: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    unpickle: bool = False,
    device: str = "auto",
    batch_size: int = 32,
) -> Scorer:
    """Returns the scorer of a name, a folder or a file.

    Args:
        spec: as in the table above.
        label: of a folder of transformers, or an attribute of `detoxify` and `perspective`: which
            counts as toxic. By default the one called toxic or toxicity.
        checkpoint: of `detoxify`, its file of weights.
        unpickle: of `detoxify`: that the checkpoint, a pickle that can run code, is trusted.
        device: of models, as for `lmcore.training.processes.find_device`.
        batch_size: of models, windows of text at once.

    Raises:
        ImportError: a package of an extra is not installed.
        OSError: a file cannot be read.
        ValueError: there is no such scorer, it is broken, or an option does not go with it.

    Example:
        >>> load_scorer("nothing")
        Traceback (most recent call last):
        ValueError: no scorer nothing: expected a folder, a file of lines, detoxify or perspective
    """
    place = os.fspath(spec)
    if place != "detoxify" and (checkpoint is not None or unpickle):
        raise ValueError("a checkpoint goes with the scorer detoxify alone")
    if place == "detoxify":
        if checkpoint is None:
            raise ValueError("detoxify needs a checkpoint: a file of weights that is here")
        from lmcore.detox.detoxify_scorer import load_detoxify

        return load_detoxify(
            checkpoint, unpickle=unpickle, label=label, device=device, batch_size=batch_size
        )
    if place == "perspective":
        from lmcore.detox.perspective import PerspectiveScorer

        return PerspectiveScorer(attribute="TOXICITY" if label is None else label)
    return _load_path(place, label, device, batch_size)


def is_model(spec: str | os.PathLike[str]) -> bool:
    """Returns whether a scorer is a neural model, which a device runs.

    Args:
        spec: as for `load_scorer`.

    Example:
        >>> is_model("detoxify"), is_model("perspective")
        (True, False)
    """
    from lmcore.detox.ngram_scorer import is_ngram_folder

    path = Path(spec)
    return os.fspath(spec) == "detoxify" or (path.is_dir() and not is_ngram_folder(path))


def _load_path(place: str, label: str | None, device: str, batch_size: int) -> Scorer:
    from lmcore.detox.lexicon_scorer import LexiconScorer
    from lmcore.detox.ngram_scorer import NgramScorer, is_ngram_folder

    path = Path(place)
    is_folder = path.is_dir()
    if is_folder and not is_ngram_folder(path):
        from lmcore.detox.classifier_scorer import ClassifierScorer

        return ClassifierScorer.load(path, label=label, device=device, batch_size=batch_size)
    if label is not None:
        raise ValueError(f"{place} has no labels to choose from: got the label {label!r:.60}")
    if is_folder:
        return NgramScorer.load(path)
    if path.is_file():
        return LexiconScorer.load(path)
    names = f"a folder, a file of lines, {' or '.join(NAMES)}"
    raise ValueError(f"no scorer {place}: expected {names}")
