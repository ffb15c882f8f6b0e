"""What `random_calls` exchanges arguments for: values of any kind, and changes of a value."""

import contextlib
import math
import random
from typing import Any

import numpy as np

from lmcore.ops.negatives import Batch, PackedBatch

EXTREMES = sorted(
    {s * (2**k + d) for k in (0, 1, 7, 8, 16, 24, 31, 32, 33, 40, 45, 53, 61, 62, 63, 64, 70)
     for d in (-1, 0, 1) for s in (-1, 1)}
)  # fmt: skip
DTYPES = ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float16", "float32",
          "float64", "bool", "complex64", "O", "U3", "S2", "M8[s]", "i4,f8"]  # fmt: skip
TEXTS = ["", "a", "\ud800", "\0", "gner", "shuffle", "average", "B-x", "(", "x" * 5000, "İ\u0301"]


def integers(source: random.Random, shape: Any, least: int, end: int, dtype: Any = np.int64) -> Any:
    generator = np.random.default_rng(source.randrange(2**32))
    return generator.integers(least, end, shape).astype(dtype)


class Shorter(list[Any]):
    """A list that says it is longer than it is."""

    def __len__(self) -> int:
        return super().__len__() + 3


class Failing:
    """Something whose items cannot be had."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        raise ValueError("no items here")


class Text(str):
    """A kind of `str`."""

    __slots__ = ()


def wild_array(source: random.Random) -> Any:
    """Returns an array of any kind, shape and layout."""
    shape = tuple(source.choice([0, 1, 2, 3, 5, 64]) for _ in range(source.randrange(4)))
    array = np.zeros(shape, source.choice(DTYPES))
    with contextlib.suppress(TypeError, ValueError):
        array[...] = integers(source, shape, -2, 9)
    if source.random() < 0.6:
        with contextlib.suppress(TypeError, ValueError):
            return change_layout(source, array)
    return array


def change_layout(source: random.Random, array: Any) -> Any:
    """Returns the same values, or a view of 2**40 of them, laid out in another way."""
    match source.randrange(8):
        case 0:
            packed = np.zeros(array.nbytes + 1, np.uint8)
            if array.dtype.hasobject:
                return array
            unaligned = packed[1:].view(array.dtype).reshape(array.shape)
            unaligned[...] = array
            return unaligned
        case 1:
            return array.astype(array.dtype.newbyteorder())
        case 2:
            array = array.copy()
            array.flags.writeable = False
            return array
        case 3:
            return np.asfortranarray(array)
        case 4:
            return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
        case 5:
            return array[::-1] if array.ndim else array
        case 6:
            size = source.choice([2**33, 2**40, 2**45])
            shape = source.choice([(size,), (size, 1), (1, size), (size // 4, 2, 2), array.shape])
            whole = array.reshape(-1)[:1] if array.size else np.zeros(1, array.dtype)
            return np.broadcast_to(whole.reshape((1,) * len(shape)), shape)
        case _:
            return array.T


def wild(source: random.Random) -> Any:
    """Returns anything."""
    match source.randrange(12):
        case 0 | 1 | 2:
            return source.choice(EXTREMES)
        case 3 | 4 | 5:
            return wild_array(source)
        case 6:
            return source.choice([0.5, math.nan, math.inf, -math.inf, 1e300, -0.0])
        case 7:
            return source.choice(TEXTS)
        case 8:
            return [wild(source) for _ in range(source.randrange(3))]
        case 9:
            return source.choice(EXTREMES) * source.choice([1, 1.5])
        case 10:
            return np.array(source.choice(EXTREMES), dtype=object).reshape(source.choice([(), 1]))
        case _:
            return source.choice(
                [
                    *(None, True, False, b"x", object(), int, {}, {"words": ["a"]}, range(3)),
                    *(np.int64(3), np.uint64(2**64 - 1), Shorter(["a"]), Failing(), Text("a"), ()),
                    *([Text("a"), "b"], [["a"], ["b", 1]], iter(["a"]), [[1], [2, 3]], 1j),
                ]
            )


def change(source: random.Random, value: Any) -> Any:
    """Returns something like the value."""
    if isinstance(value, np.ndarray) and source.random() < 0.8:
        # Not every dtype and shape can be made of every other, and views can be too large.
        with contextlib.suppress(TypeError, ValueError, OverflowError, MemoryError):
            return change_array(source, value)
        return value
    if isinstance(value, list) and source.random() < 0.8:
        value = list(value)
        place = source.randrange(len(value) + 1)
        if source.random() < 0.3 or place == len(value):
            value.insert(place, wild(source))
        elif source.random() < 0.3:
            del value[place]
        else:
            value[place] = change(source, value[place])
        return value
    if isinstance(value, str) and source.random() < 0.8:
        place = source.randrange(len(value) + 1)
        return value[:place] + source.choice(TEXTS) + value[place + source.randrange(2) :]
    if isinstance(value, dict) and value and source.random() < 0.8:
        key = source.choice(sorted(value))
        if source.random() < 0.3:
            return {name: held for name, held in value.items() if name != key}
        return value | {key: change(source, value[key])}
    if isinstance(value, (Batch, PackedBatch)) and source.random() < 0.8:
        fields = [getattr(value, name) for name in value.__slots__]
        place = source.randrange(len(fields))
        fields[place] = change(source, fields[place])
        return type(value)(*fields)
    return wild(source)


def change_array(source: random.Random, array: Any) -> Any:
    match source.randrange(6):
        case 0 | 1:
            return change_layout(source, array)
        case 2:
            return array.astype(source.choice(DTYPES[:10]))
        case 3:
            shape = [max(0, n + source.choice([-1, 0, 0, 1])) for n in array.shape]
            return np.resize(array, shape)
        case 4:
            return array[None] if source.random() < 0.5 else array.reshape(-1)
        case _:
            array = array.copy()
            if array.size:
                place = source.randrange(array.size)
                with contextlib.suppress(OverflowError):
                    array.reshape(-1)[place] = source.choice([*EXTREMES, 0, 1, 2])
            return array
