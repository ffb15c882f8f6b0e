"""Scores of a model's parts in a file, to plan other sizes with.

A file is one of safetensors: float64 tensors under the names of `Scores`, layers along the first
axis, and in its metadata `format`, `version`, `method`, `model` (a digest), `text` (SHA-256 of the
calibration text, empty without one), `tokens` (that were read) and `most_tokens` (asked for).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._files import whole_file
from lmcore._safetensors import make_header, read_header, read_metadata
from lmcore.compression.checkpoint_folders import read_checkpoint
from lmcore.compression.choosing import SCORED, Scores
from lmcore.compression.plan import LAYERED, find_sizes, layers_of
from lmcore.cost import Shape

_FORMAT, _VERSION = "lmcore-scores", "1"
_NAMES = tuple(field.name for field in fields(Scores))
_NUMBERS = ("tokens", "most_tokens")
_KEYS = ("format", "version", "method", "model", "text", *_NUMBERS)
_SAMPLES = 64


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class StoredScores:
    """Scores, and what they were measured on.

    Raises:
        ValueError: there is no such method.

    Example:
        >>> StoredScores(scores=Scores(), method="magnitude", model="ab").tokens
        0
    """

    scores: Scores
    method: str
    """One of `lmcore.compression.choosing.SCORED`."""
    model: str
    """Digest of the model: `digest_weights`."""
    text: str = ""
    """SHA-256 of the calibration text; empty where the weights tell all."""
    tokens: int = 0
    """Of the text that were read."""
    most_tokens: int = 0
    """That were asked for."""

    def __post_init__(self) -> None:
        if self.method not in SCORED:
            raise ValueError(f"method must be one of {', '.join(SCORED)}: got {self.method!r:.60}")


def digest_weights(folder: str | os.PathLike[str]) -> str:
    """Returns what tells a model from others, also from those that were trained on.

    Some weights of each tensor are read, not all: it takes moments whatever the size.

    Args:
        folder: of the model.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no checkpoint, or a damaged one.

    Example:
        >>> import tempfile
        >>> from transformers import T5Config, T5ForConditionalGeneration
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=1, vocab_size=9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     T5ForConditionalGeneration(config).save_pretrained(folder)
        ...     len(digest_weights(folder))
        32
    """
    from lmcore.compression.model_folders import digest_model

    checkpoint = read_checkpoint(folder)
    digest = hashlib.blake2b(digest_model(Path(folder), checkpoint).encode(), digest_size=16)
    for _, tensor in sorted(checkpoint.tensors.items()):
        rows = np.atleast_1d(tensor.elements)
        while rows.ndim > 1 and rows.size:  # a row is small, whatever the tensor
            digest.update(np.ascontiguousarray(rows[-1].reshape(-1)[:_SAMPLES]).tobytes())
            rows = rows[:: max(1, rows.shape[0] // _SAMPLES), rows.shape[1] // 2]
        digest.update(np.ascontiguousarray(rows[:_SAMPLES]).tobytes())
    return digest.hexdigest()


def write_scores(path: str | os.PathLike[str], stored: StoredScores) -> None:
    """Writes a file of scores: equal scores become equal bytes.

    Args:
        path: the file; whole under its name at the end, or not there.
        stored: scores of at least one dimension.

    Raises:
        OSError: the file cannot be written.
        ValueError: there are no scores, or one is no finite number.

    Example:
        >>> import tempfile
        >>> scores = Scores(decoder_layers=np.array([0.5, 0.25]))
        >>> stored = StoredScores(scores=scores, method="block_influence", model="ab")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_scores(Path(folder, "scores"), stored)
        ...     read_scores(Path(folder, "scores")).scores.decoder_layers.tolist()
        [0.5, 0.25]
    """
    arrays = {name: _join(getattr(stored.scores, name)) for name in _NAMES}
    arrays = {name: array for name, array in arrays.items() if array.size}
    if not arrays:
        raise ValueError("expected scores of at least one dimension, got none")
    for name, array in arrays.items():
        _check_finite(name, array)
    metadata = {"format": _FORMAT, "version": _VERSION}
    metadata |= {name: str(getattr(stored, name)) for name in _KEYS[2:]}
    header = make_header({name: ("F64", array.shape) for name, array in arrays.items()}, metadata)
    with whole_file(path) as place, open(place, "wb") as file:
        file.write(header)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, "<f8").data)


def read_scores(path: str | os.PathLike[str]) -> StoredScores:
    """Returns the scores of a file.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no scores, or damaged ones; the text names the file.

    Example:
        >>> read_scores("pyproject.toml")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: pyproject.toml: not a whole safetensors file: its header has ...
    """
    name = os.fspath(path)
    entries, metadata = read_header(name), read_metadata(name)
    try:
        about = _read_about(metadata)
        arrays = {}
        with open(name, "rb") as file:
            for tensor, entry in entries.items():
                axes = 2 if tensor in LAYERED else 1
                if tensor not in _NAMES or entry.dtype != "F64" or len(entry.shape) != axes:
                    raise ValueError(f"expected scores, got {tensor!r:.60} of {entry.dtype}")
                file.seek(entry.offset)
                values = np.frombuffer(file.read(entry.bytes), "<f8").reshape(entry.shape)
                _check_finite(tensor, values)
                arrays[tensor] = values.astype(np.float64)
        if not arrays:
            raise ValueError("expected scores of at least one dimension, got none")
        found: dict[str, Any] = {
            tensor: dict(enumerate(values)) if tensor in LAYERED else values
            for tensor, values in arrays.items()
        }
        return StoredScores(scores=Scores(**found), **about)
    except ValueError as error:
        raise ValueError(f"{name}: not a file of scores: {error}") from None


def check_scores(stored: StoredScores, model: str, shape: Shape) -> None:
    """Checks that scores are those of a model.

    Args:
        stored: scores.
        model: its digest.
        shape: of it.

    Raises:
        ValueError: they are of another.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=2, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> scores = Scores(decoder_layers=np.array([0.5, 0.25]))
        >>> stored = StoredScores(scores=scores, method="block_influence", model="ab")
        >>> check_scores(stored, "ab", shape)
        >>> check_scores(stored, "cd", shape)
        Traceback (most recent call last):
        ValueError: the scores are of another model
    """
    if stored.model != model:
        raise ValueError("the scores are of another model")
    sizes = find_sizes(shape)
    for name in _NAMES:
        array = _join(getattr(stored.scores, name))
        layers = (sizes[layers_of(name)],) if name in LAYERED else ()
        if array.size and array.shape != (*layers, sizes[name]):
            raise ValueError(
                f"the scores are of another model: {name} has the shape {[*array.shape]} where "
                f"{[*layers, sizes[name]]} is expected"
            )


def _join(values: Any) -> NDArray[np.float64]:
    """`[layers, indices]`, or `[indices]`; empty where there are none."""
    if values is None or not len(values):
        return np.empty(0)
    rows = [values[layer] for layer in range(len(values))] if isinstance(values, dict) else values
    return np.asarray(rows, np.float64)


def _read_about(metadata: dict[str, str]) -> dict[str, Any]:
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"its format is {metadata.get('format')!r:.40}")
    if metadata.get("version") != _VERSION:
        raise ValueError(f"expected version {_VERSION}, got {metadata.get('version')!r:.40}")
    if {*metadata} != {*_KEYS}:
        raise ValueError(f"expected {', '.join(_KEYS)}: got {', '.join(metadata):.200}")
    about: dict[str, Any] = {name: metadata[name] for name in ("method", "model", "text")}
    for name in _NUMBERS:
        if not (metadata[name].isascii() and metadata[name].isdigit() and len(metadata[name]) < 19):
            raise ValueError(f"{name} must be a whole number: got {metadata[name]!r:.40}")
        about[name] = int(metadata[name])
    return about


def _check_finite(name: str, values: NDArray[np.float64]) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"scores must be finite numbers: {name} has another")
