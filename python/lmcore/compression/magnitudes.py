"""How large the weights of each channel, head and inner unit are, tensor by tensor.

Files are mapped and read by blocks of rows: memory does not grow with the model, and nothing is
computed with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._stored import StoredTensor
from lmcore.compression.checkpoint_folders import read_checkpoint
from lmcore.compression.choosing import Scores
from lmcore.compression.families import Family, find_family
from lmcore.compression.families.family import Axis
from lmcore.compression.plan import LAYERED, Plan, find_sizes, layers_of
from lmcore.compression.pruning import make_cuts
from lmcore.cost import Shape

_BLOCK_ELEMENTS = 1 << 20
_VIEWS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


class Sums:
    """Numbers that are added up for the indices of each dimension, of each layer.

    Args:
        shape: of the model.

    Example:
        >>> sums = Sums(Shape(
        ...     encoder_layers=0, decoder_layers=1, hidden_size=2, heads=2, groups=2, head_size=2,
        ...     inner_size=3, vocabulary_size=9))
        >>> sums.add("decoder_ffn", 0, np.array([1.0, 4.0, 9.0]))
        >>> sums.make_scores(np.sqrt).decoder_ffn[0].tolist()
        [1.0, 2.0, 3.0]
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        sizes = find_sizes(shape)
        self.hidden = np.zeros(sizes["hidden"])
        self.layered = {
            name: {layer: np.zeros(sizes[name]) for layer in range(sizes[layers_of(name)])}
            for name in LAYERED
        }

    def add(self, name: str, layer: int | None, values: NDArray[np.float64]) -> None:
        """Adds numbers.

        Args:
            name: of the dimension.
            layer: whose indices they are of; None of `hidden`.
            values: `[indices]`.
        """
        target = self.hidden if layer is None else self.layered[name][layer]
        target += values

    def make_scores(self, change: Callable[[Any], Any]) -> Scores:
        """Returns the sums as scores.

        Args:
            change: is applied to each array.
        """
        layered: dict[str, Any] = {
            name: {layer: change(values) for layer, values in layers.items()}
            for name, layers in self.layered.items()
        }
        return Scores(hidden=change(self.hidden), **layered)


def score_magnitudes(
    folder: str | os.PathLike[str],
    plan: Plan,
    *,
    family: Family | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Scores:
    """Returns the root of the sum of squares of all weights that belong to each index.

    A channel has the rows and columns of all maps, its place in norms and biases, and its column
    of the embedding; a head and an inner unit have those of their layer.

    Args:
        folder: of the model.
        plan: of the same model; only its shape counts.
        family: that of the plan's model if None.
        progress: called with the bytes that are read so far, and in all.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds another model, or weights that are no finite numbers; the text
            names it.

    Example:
        >>> import tempfile
        >>> from lmcore.compression.planning import start_plan
        >>> from transformers import T5Config, T5ForConditionalGeneration
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=1, vocab_size=9)
        >>> model = T5ForConditionalGeneration(config)
        >>> mlp = model.encoder.block[0].layer[1].DenseReluDense
        >>> for weight in (mlp.wi.weight, mlp.wo.weight.T):
        ...     weight.data[3] = 0
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     scores = score_magnitudes(folder, start_plan(folder))
        >>> scores.encoder_ffn[0].argmin(), scores.encoder_ffn[0].min()
        (np.int64(3), np.float64(0.0))
    """
    family = family or find_family(plan.model_type)
    tensors = read_checkpoint(folder).tensors
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    try:
        make_cuts(Plan(model_type=plan.model_type, shape=plan.shape), shapes, family)
    except ValueError as error:
        raise ValueError(f"{Path(folder)}: {error}") from None
    sums = Sums(plan.shape)
    done, total = 0, sum(tensor.bytes for tensor in tensors.values())
    for name, tensor in tensors.items():
        found = family.find(name)
        assert found is not None
        squares = _add_squares(name, tensor) if _has_dimension(found.axes) else []
        for axis, values in zip(found.axes, squares, strict=False):
            if axis is None or axis.dimension == "vocabulary":
                continue
            indices = fold(axis, values, plan.shape)
            if axis.dimension == "hidden":
                sums.add("hidden", None, indices)
            elif found.layer is not None:
                sums.add(f"{found.stack}_{axis.dimension}", found.layer, indices)
        done += tensor.bytes
        if progress is not None:
            progress(done, total)
    return sums.make_scores(np.sqrt)


def fold(axis: Axis, values: NDArray[np.float64], shape: Shape) -> NDArray[np.float64]:
    """Returns the sum over the places of each index.

    Args:
        axis: whose places they are.
        values: `[places]`.
        shape: of the model.

    Example:
        >>> from lmcore.compression.families.family import GATED
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=1, hidden_size=2, heads=2, groups=2, head_size=2,
        ...     inner_size=3, vocabulary_size=9)
        >>> fold(GATED, np.arange(6.0), shape).tolist()
        [3.0, 5.0, 7.0]
    """
    size, width = axis.measure(shape)
    found: NDArray[np.float64] = values.reshape(axis.blocks, size, width).sum((0, 2))
    return found


def _has_dimension(axes: tuple[Axis | None, ...]) -> bool:
    return any(axis is not None and axis.dimension != "vocabulary" for axis in axes)


def _add_squares(name: str, tensor: StoredTensor) -> list[NDArray[np.float64]]:
    """For each axis the sum of squares at each of its places."""
    sums = [np.zeros(size) for size in tensor.shape]
    step = max(1, _BLOCK_ELEMENTS * tensor.shape[0] // max(1, tensor.elements.size))
    for start in range(0, tensor.shape[0], step):
        block = _read_floats(name, tensor, slice(start, start + step))
        with np.errstate(over="ignore"):
            block *= block
        for axis, total in enumerate(sums):
            part = block.sum(tuple(other for other in range(block.ndim) if other != axis))
            if axis:
                total += part
            else:
                total[start : start + step] = part
        if not np.isfinite(sums[0][start : start + step]).all():
            raise ValueError(
                f"{tensor.file}: weights must be finite numbers, whose squares are: {name} has "
                "another"
            )
    return sums


def _read_floats(name: str, tensor: StoredTensor, rows: slice) -> NDArray[np.float64]:
    part = np.ascontiguousarray(tensor.elements[rows])
    if tensor.dtype == "BF16":
        wide: NDArray[np.float64] = (part.view("<u2").astype("<u4") << 16).view("<f4").astype("f8")
        return wide
    if tensor.dtype not in _VIEWS:
        raise ValueError(
            f"{tensor.file}: weights must be of {', '.join((*_VIEWS, 'BF16'))}: {name} is of "
            f"{tensor.dtype}"
        )
    return part.view(_VIEWS[tensor.dtype]).astype("f8")
