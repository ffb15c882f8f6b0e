"""Batches of denoised texts in a form that compares, for the tests of `ops.denoising`."""

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.ops import denoising
from lmcore.reference import denoising as reference
from parity import agree


def as_lists(record: Any) -> dict[str, Any]:
    """The fields of a batch or a sample, with their names."""
    names = record._fields if isinstance(record, tuple) else [f.name for f in fields(record)]
    return {name: np.asarray(getattr(record, name)).tolist() for name in names}


def texts_of(count: int, length: int, seed: int = 0) -> NDArray[np.int64]:
    """`[count, length]` tokens that are no special ones."""
    return np.random.default_rng(seed).integers(3, 50_000, (count, length))


def both(name: str, *args: Any, **kwargs: Any) -> Any:
    """What the definition and the op of this name return or raise alike."""

    def call(module: Any) -> Any:
        return as_lists(getattr(module, name)(*args, **kwargs))

    return agree(lambda: call(reference), lambda: call(denoising))
