"""The default scorer: a linear model of hashed n-grams, in a folder without pickles.

The log-odds of a text are the sum of its features' weights over the root of their number, so each
word has a share in them, and the shares and an intercept add up to what the score says.

| file | what it holds |
| --- | --- |
| `config.json` | format, settings, digests of both files |
| `weights-<digest>.npy` | `[2 ** bits]` float32 |

`config.json` is renamed last and names its weights, so a folder is the old or the new scorer at
any moment.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcore._files import FolderLock, naming_errors, whole_file, write_text
from lmcore._json import read_json
from lmcore.detox.calibration import to_probabilities
from lmcore.detox.ngram_features import find_words, hash_texts, hash_words
from lmcore.detox.scorers import WordWeight

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = "lmcore-ngram-scorer"
_VERSION = 1
_KEYS = {"format", "version", "bits", "slope", "intercept", "weights", "report", "digest"}
_MOST_BITS = 24
# Texts whose features are in memory at once.
_PART = 4096


@dataclass(kw_only=True, frozen=True, eq=False)
class NgramScorer:
    """A score from word and character n-grams, and the words that made it so.

    Args:
        weights: `[2 ** bits]` float32, of each feature.
        slope: by which log-odds are multiplied, so that scores are probabilities.
        intercept: what is added then.
        report: how well it did on texts that it was not trained on, as JSON.

    Raises:
        ValueError: the number of weights is no power of two from 2 to 2**24, or something is not
            finite.

    Example:
        >>> from lmcore.detox.ngram_training import train_scorer
        >>> texts = [f"{word} {number}" for number in range(20) for word in ("nice", "zorgish")]
        >>> scorer = train_scorer(texts, [0, 1] * 20)
        >>> nice, zorgish = scorer(["so nice", "so zorgish"])
        >>> bool(nice < 0.5 < zorgish), scorer.explain("so zorgish")[-1].word
        (True, 'zorgish')
    """

    weights: NDArray[np.float32]
    slope: float
    intercept: float
    report: Mapping[str, Any]

    def __post_init__(self) -> None:
        import numpy as np

        size = len(self.weights)
        if self.weights.shape != (size,) or not 2 <= size <= 1 << _MOST_BITS or size & (size - 1):
            raise ValueError(
                f"weights must be a power of two, at most 2**{_MOST_BITS}: "
                f"got the shape {self.weights.shape}"
            )
        values = (self.slope, self.intercept)
        if not np.isfinite(self.weights).all() or not all(map(math.isfinite, values)):
            raise ValueError("weights, slope and intercept must be finite")

    @property
    def bits(self) -> int:
        """Features are below `2 ** bits`."""
        return len(self.weights).bit_length() - 1

    @cached_property
    def key(self) -> str:
        """What tells this scorer from others."""
        return f"{FORMAT} {self._describe()['digest']}"

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Returns a score for each text, which does not depend on the others.

        Args:
            texts: N texts.
        """
        import numpy as np

        parts = [self._score(texts[at : at + _PART]) for at in range(0, len(texts), _PART)]
        return np.concatenate([np.zeros(0), *parts])

    def explain(self, text: str) -> list[WordWeight]:
        """Returns the words of a text and what each adds to the log-odds of its score.

        A feature of several words, or of a word that stands there several times, is shared out
        evenly. The weights and the intercept add up to the log-odds.

        Args:
            text: any text.

        Example:
            >>> import numpy as np
            >>> scorer = NgramScorer(weights=np.ones(2, "f4"), slope=1, intercept=-1, report={})
            >>> [(word.start, word.end, word.word) for word in scorer.explain("b, a")]
            [(0, 1, 'b'), (1, 2, ','), (3, 4, 'a')]
        """
        words = find_words(text)
        features = [*hash_words(words, self.bits)]
        counts: dict[int, int] = {}
        for feature, _ in features:
            counts[feature] = counts.get(feature, 0) + 1
        adds = [0.0] * len(words)
        scale = self.slope / math.sqrt(max(1, len(counts)))
        for feature, indices in features:
            share = float(self.weights[feature]) * scale / (counts[feature] * len(indices))
            for index in indices:
                adds[index] += share
        return [
            WordWeight(word.start, word.end, text[word.start : word.end], add)
            for word, add in zip(words, adds, strict=True)
        ]

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        inputs: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        """Writes the scorer into a folder, which is made if it is not there.

        Args:
            folder: empty, or that of a scorer.
            inputs: files that it must not write over.

        Raises:
            FileExistsError: the folder holds something else, or another process writes into it.
            OSError: a file cannot be written.
            ValueError: a file is an input.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> scorer = NgramScorer(weights=np.ones(2, "f4"), slope=1, intercept=0, report={})
            >>> with tempfile.TemporaryDirectory() as place:
            ...     scorer.save(place)
            ...     NgramScorer.load(place).bits
            1
        """
        place = Path(folder)
        check_folder(place)
        place.mkdir(parents=True, exist_ok=True)
        config = self._describe()
        with FolderLock(place, doing="writing a scorer").hold():
            weights = place / config["weights"]
            with whole_file(weights, inputs) as file, naming_errors(weights, file):
                file.write_bytes(self._pack())
            write_text(place / "config.json", json.dumps(config, indent=2) + "\n", inputs)
            for other in place.glob("weights-*.npy"):
                if other.name != weights.name and _is_weights(other.name):
                    other.unlink()

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> NgramScorer:
        """Returns the scorer of a folder.

        Args:
            folder: as `save` wrote it.

        Raises:
            OSError: a file cannot be read.
            ValueError: it is no such folder, or a file in it has changed.

        Example:
            >>> NgramScorer.load("python")
            Traceback (most recent call last):
            ValueError: python: not a folder of an n-gram scorer: it has no config.json
        """
        import numpy as np

        place = Path(folder)
        path = place / "config.json"
        if not path.is_file():
            raise ValueError(f"{place}: not a folder of an n-gram scorer: it has no config.json")
        config = _check_config(path, read_json(path, "the settings of an n-gram scorer"))
        file = place / config["weights"]
        if not file.is_file():
            raise ValueError(f"{file}: the weights that {path.name} names are missing")
        size = 4 << config["bits"]
        # Before it is read: of a file that is too long nothing is taken into memory.
        if not size < file.stat().st_size < size + 4096:
            raise ValueError(f"{file}: expected {1 << config['bits']} weights of 4 bytes")
        content = file.read_bytes()
        if config["weights"] != _name_weights(content):
            raise ValueError(f"{file}: its digest is not that of its name: it has changed")
        weights = _unpack(file, content, 1 << config["bits"])
        settings = {name: config[name] for name in ("slope", "intercept", "report")}
        try:
            return cls(weights=np.asarray(weights), **settings)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None

    def _score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        import numpy as np

        offsets, features = hash_texts(texts, self.bits)
        sums = add_weights(self.weights.astype(np.float64), offsets, features)
        return to_probabilities(self.slope * sums + self.intercept)

    def _pack(self) -> bytes:
        import numpy as np

        with io.BytesIO() as file:
            np.save(file, self.weights.astype("<f4"), allow_pickle=False)
            return file.getvalue()

    def _describe(self) -> dict[str, Any]:
        """The settings as they are written, with a digest."""
        config = {
            "format": FORMAT, "version": _VERSION, "bits": self.bits, "slope": self.slope,
            "intercept": self.intercept, "weights": _name_weights(self._pack()),
            "report": dict(self.report),
        }  # fmt: skip
        return {**config, "digest": _digest(config)}


def add_weights(
    weights: NDArray[np.float64], offsets: NDArray[np.int64], features: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Returns the sum of the weights of each text's features over the root of their number.

    Args:
        weights: float64 by feature.
        offsets: `[N + 1]` int64, where each text's features begin.
        features: int32, those of all texts.

    Example:
        >>> import numpy as np
        >>> offsets = np.array([0, 0, 4])
        >>> add_weights(np.ones(9), offsets, np.arange(4)).tolist()
        [0.0, 2.0]
    """
    import numpy as np

    counts = np.diff(offsets)
    rows = np.repeat(np.arange(len(counts)), counts)
    # Added in order, text by text: the same bits whatever stands beside a text.
    sums = np.bincount(rows, weights[features], len(counts))
    return sums / np.sqrt(np.maximum(counts, 1))


def is_ngram_folder(path: Path) -> bool:
    """Returns whether a folder says that it holds an n-gram scorer.

    Args:
        path: a folder.

    Example:
        >>> is_ngram_folder(Path("python"))
        False
    """
    config = path / "config.json"
    if not config.is_file():  # a pipe of that name would be waited for
        return False
    try:
        with open(config, "rb") as file:
            return f'"{FORMAT}"'.encode() in file.read(1 << 20)
    except OSError:
        return False


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Checks that a scorer may be written into a folder.

    Args:
        folder: any name.

    Raises:
        FileExistsError: files stand there, and not those of a scorer.

    Example:
        >>> check_folder("python")
        Traceback (most recent call last):
        FileExistsError: python: the folder holds something else than a scorer
    """
    place = Path(folder)
    if place.is_dir() and is_ngram_folder(place):
        return
    if place.exists() and not place.is_dir():
        raise FileExistsError(f"{place}: expected a folder, got a file")
    # What a killed start left does not count.
    if place.exists() and any(not _is_left(path.name) for path in place.iterdir()):
        raise FileExistsError(f"{place}: the folder holds something else than a scorer")


def _is_left(name: str) -> bool:
    return name == ".lock" or name.startswith(".lmcore-") or _is_weights(name)


def _is_weights(name: str) -> bool:
    return re.fullmatch(r"weights-[0-9a-f]{32}\.npy", name) is not None


def _name_weights(content: bytes) -> str:
    return f"weights-{hashlib.blake2b(content, digest_size=16).hexdigest()}.npy"


def _digest(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _check_config(path: Path, config: Any) -> dict[str, Any]:
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{path}: not the settings of an n-gram scorer")
    if config.get("version") != _VERSION:
        raise ValueError(f"{path}: version {config.get('version')!r:.40} cannot be read")
    own = {name: value for name, value in config.items() if name != "digest"}
    if set(config) != _KEYS or config["digest"] != _digest(own):
        raise ValueError(f"{path}: it has changed since it was written")
    bits, report = config["bits"], config["report"]
    numbers = [config["slope"], config["intercept"]]
    if (
        type(bits) is not int
        or not 1 <= bits <= _MOST_BITS
        or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
        or not isinstance(config["weights"], str)
        or not _is_weights(config["weights"])
        or not isinstance(report, dict)
    ):
        raise ValueError(f"{path}: not the settings of an n-gram scorer")
    return config


def _unpack(file: Path, content: bytes, size: int) -> NDArray[np.float32]:
    import numpy as np

    try:
        weights = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        weights = None
    if not isinstance(weights, np.ndarray) or weights.shape != (size,) or weights.dtype != "<f4":
        raise ValueError(f"{file}: expected {size} weights of 4 bytes")
    return weights
