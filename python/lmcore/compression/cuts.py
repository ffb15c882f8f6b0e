"""What is kept of the tensors of a checkpoint, and what a cut means.

Every method of pruning ends as a list of cuts: which indices of each axis of a tensor are kept, in
which order, and under which name. `apply_cut` is the definition, in memory;
`lmcore.compression.shards` does the same to files. Nothing is computed with the numbers, so that
what is kept is kept bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lmcore._safetensors import is_name

if TYPE_CHECKING:
    import torch

    T = TypeVar("T", NDArray[Any], torch.Tensor)


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class TensorCut:
    """What is kept of one tensor of a checkpoint, and the name under which it is written.

    Args:
        source: name in the checkpoint that is read.
        target: name in the one that is written.
        keep: for each axis the kept indices, `[kept]` integers in the order written, or None
            where the axis is kept whole; `()` keeps all axes. An index may stand twice: rows that
            pad a vocabulary repeat one.

    Raises:
        IndexError: an index is negative.
        TypeError: indices are no whole numbers.
        ValueError: indices have not one axis, or a name is none.

    Example:
        >>> cut = TensorCut(source="wi", target="wi", keep=(None, np.array([2, 0])))
        >>> apply_cut(np.array([[1, 2, 3], [4, 5, 6]]), cut).tolist()
        [[3, 1], [6, 4]]
    """

    source: str
    """Name in the checkpoint that is read."""
    target: str
    """Name in the one that is written."""
    keep: tuple[NDArray[np.int64] | None, ...] = ()
    """For each axis the kept indices, or None where it is kept whole; `()` keeps all axes."""

    def __post_init__(self) -> None:
        for name in (self.source, self.target):
            if not is_name(name):
                raise ValueError(f"a tensor has a name, of UTF-8: got {name!r:.100}")
        kept = tuple(
            None if indices is None else _own_indices(self.source, axis, indices)
            for axis, indices in enumerate(self.keep)
        )
        object.__setattr__(self, "keep", kept)


def apply_cut(tensor: T, cut: TensorCut) -> T:
    """Returns what a cut keeps of a tensor: new memory, the same type, the same bits.

    Args:
        tensor: the cut's source, an array or tensor of any shape and type.
        cut: what is kept of it.

    Raises:
        IndexError: the tensor has no such index.
        ValueError: the tensor has another number of axes.

    Example:
        >>> cut = TensorCut(source="bias", target="bias", keep=(np.array([1, 1, 0]),))
        >>> apply_cut(np.array([0.5, 1.5], np.float16), cut)
        array([1.5, 1.5, 0.5], dtype=float16)
    """
    find_shape(cut, tensor.shape)
    axes = [(axis, kept) for axis, kept in enumerate(cut.keep) if kept is not None]
    if isinstance(tensor, np.ndarray):
        for axis, kept in axes:
            tensor = tensor.take(kept, axis)
        return tensor if axes else tensor.copy()
    import torch

    from lmcore.ops.pruning_mask import prune_columns

    # Copies: torch warns of memory that it must not write to.
    indices = {axis: torch.from_numpy(kept.copy()).to(tensor.device) for axis, kept in axes}
    if axes and tensor.ndim == 2:
        return prune_columns(tensor, indices.get(0), indices.get(1))
    for axis, kept in indices.items():
        tensor = tensor.index_select(axis, kept)
    return tensor if axes else tensor.clone()


def find_shape(cut: TensorCut, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape that a cut leaves.

    Args:
        cut: what is kept.
        shape: of the cut's source.

    Raises:
        IndexError: a tensor of this shape has no such index.
        ValueError: it has another number of axes.

    Example:
        >>> find_shape(TensorCut(source="wi", target="wi", keep=(None, np.arange(2))), (4, 8))
        (4, 2)
    """
    if not cut.keep:
        return tuple(shape)
    if len(cut.keep) != len(shape):
        raise ValueError(
            f"{cut.source}: the cut has {len(cut.keep)} axes, and the tensor {list(shape)}"
        )
    for axis, (size, kept) in enumerate(zip(shape, cut.keep, strict=True)):
        if kept is not None and kept.size and kept.max() >= size:
            raise IndexError(
                f"{cut.source}: index {kept.max()} on axis {axis}, which has {size} of them"
            )
    return tuple(
        size if kept is None else len(kept) for size, kept in zip(shape, cut.keep, strict=True)
    )


def _own_indices(name: str, axis: int, indices: Any) -> NDArray[np.int64]:
    """A copy that nobody else changes: what was checked stays so."""
    found = np.asarray(indices)
    where = f"{name}: indices of axis {axis}"
    if found.ndim != 1:
        raise ValueError(f"{where} must have one axis: got {found.ndim}")
    if found.size and not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"{where} must be whole numbers: got {found.dtype}")
    if found.size and found.min() < 0:
        raise IndexError(f"{where} must not be negative: got {found.min()}")
    if found.size and found.max() > np.iinfo(np.int64).max:
        raise IndexError(f"{where} must be below 2**63: got {found.max()}")
    own = found.astype(np.int64)
    own.setflags(write=False)
    return own
