"""What a memory of false negatives asks of its arguments, in the definition and in the op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.reference._arguments import as_integers, as_native, check_int

USER_BITS, POSITION_BITS, ITEM_BITS, COUNT_BITS = 24, 8, 32, 24
LARGEST_COUNT = 2**COUNT_BITS - 1
"""Counts stay at this value when they reach it."""

STATE_DTYPES = {
    "hard_keys": np.uint32,
    "hard_offsets": np.int64,
    "hard_items": np.uint32,
    "count_keys": np.uint64,
    "counts": np.uint32,
    "evicted_count": np.int64,
}
"""The arrays of a state: see `FalseNegativeMemory.state_dict`."""


def check_settings(threshold: object, max_keys: object) -> tuple[int | None, int | None]:
    """Returns threshold and max_keys as integers in their ranges, or None."""
    if threshold is not None:
        threshold = check_int("threshold", threshold, 0, LARGEST_COUNT - 1, optional=True)
    if max_keys is not None:
        max_keys = check_int("max_keys", max_keys, 1, 1 << 63, optional=True)
    return threshold, max_keys


def check_max_length(max_length: object) -> int:
    """Returns a length whose positions fit into 8 bits."""
    return check_int("max_length", max_length, 1, most=1 << POSITION_BITS)


def check_users(users: ArrayLike) -> NDArray[np.int64]:
    """Returns users `[B]` int64."""
    return as_integers("users", users, "[B]", lambda index, user: _user_range(user, index[0]))


def check_flat_indices(flat_indices: ArrayLike, end: int) -> NDArray[np.int64]:
    """Returns the flat indices `[P]` int64 of packed positions, of a batch with `end` of all."""
    return as_integers(
        "flat_indices",
        flat_indices,
        "[P]",
        lambda index, flat: flat_index_range(end, flat, index[0]),
    )


def _user_range(user: int, row: int) -> IndexError:
    return IndexError(f"users must be at least 1 and below 2**{USER_BITS}: got {user} at row {row}")


def flat_index_range(end: int, flat: int, index: int) -> IndexError:
    """Returns the error of a packed position that the batch does not have."""
    return IndexError(
        f"flat_indices must be at least 0 and below {end}: got {flat} at index {index}"
    )


def _positive_range(index: tuple[int, ...], item: int) -> IndexError:
    return IndexError(
        f"positives must be at least -2**63 and below 2**63: got {item} at row {index[0]}, "
        f"position {index[1]}"
    )


def check_positives(positives: ArrayLike) -> NDArray[np.int64]:
    """Returns positives `[B, L]` int64."""
    pos = as_integers("positives", positives, "[B, L]", _positive_range)
    check_max_length(pos.shape[1])
    return pos


def check_negatives(negatives: object, shape: tuple[int, ...], *, written: bool = False) -> None:
    """Refuses negatives of another type or shape, or that cannot be written in place."""
    if not isinstance(negatives, np.ndarray):
        raise TypeError(f"negatives must be a numpy array: got {type(negatives).__name__}")
    if negatives.dtype not in (np.int64, np.int32):
        raise TypeError(f"negatives must be int64 or int32: got {negatives.dtype}")
    if negatives.ndim != len(shape) + 1 or negatives.shape[:-1] != shape:
        expected = ", ".join([*map(str, shape), "N"])
        raise ValueError(f"negatives must have shape [{expected}]: got {list(negatives.shape)}")
    flags = negatives.flags
    if written and not (flags.c_contiguous and flags.writeable and flags.aligned):
        raise ValueError(
            "negatives must be contiguous, aligned and writeable: they are written in place"
        )


def check_scores(scores: ArrayLike, negatives: NDArray[Any]) -> NDArray[Any]:
    """Returns the logits or the mask, contiguous, with a shape that fits the negatives."""
    z = as_native(np.asarray(scores))
    if z.dtype not in (np.bool_, np.float32, np.float64):
        raise TypeError(f"scores must be bool, float32 or float64: got {z.dtype}")
    count = negatives.shape[-1] + (z.dtype != np.bool_)
    if z.shape != (*negatives.shape[:-1], count):
        raise ValueError(
            f"scores of {z.dtype} must have shape {[*negatives.shape[:-1], count]}: got "
            f"{list(z.shape)}"
        )
    return z


def check_ids(users: NDArray[np.int64]) -> None:
    """Refuses user ids that 24 bits cannot hold."""
    for row, user in enumerate(users.tolist()):
        if not 1 <= user < 1 << USER_BITS:
            raise _user_range(user, row)


def check_state(state: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    """Returns the arrays of a state, checked."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping: got {type(state).__name__}")
    if set(state) != set(STATE_DTYPES):
        raise ValueError(
            f"state must hold {', '.join(STATE_DTYPES)}: got {', '.join(map(str, state))}"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for name, kind in STATE_DTYPES.items():
        array = as_native(np.asarray(state[name]))
        if array.dtype != kind or array.ndim != (name != "evicted_count"):
            form = "a scalar" if name == "evicted_count" else "one dimension"
            raise ValueError(
                f"state[{name!r}] must be {np.dtype(kind)} with {form}: got {array.dtype} of shape "
                f"{list(array.shape)}"
            )
        arrays[name] = array
    keys, offsets, items = arrays["hard_keys"], arrays["hard_offsets"], arrays["hard_items"]
    tests = {
        "hard_keys must ascend and have users from 1": _ascend(keys, 1 << POSITION_BITS),
        "hard_offsets must ascend from 0 to the number of hard_items": len(offsets) == len(keys) + 1
        and offsets[0] == 0
        and offsets[-1] == len(items)
        and bool((offsets[1:] > offsets[:-1]).all()),
        "hard_items must be at least 1": bool((items > 0).all()),
        "count_keys must ascend and have users and items from 1": _ascend(
            arrays["count_keys"], 1 << POSITION_BITS + ITEM_BITS
        )
        and bool((arrays["count_keys"] & np.uint64(0xFFFFFFFF) > 0).all()),
        f"counts must be one per key, from 1 to {LARGEST_COUNT}": len(arrays["counts"])
        == len(arrays["count_keys"])
        and bool(((arrays["counts"] > 0) & (arrays["counts"] <= LARGEST_COUNT)).all()),
        "evicted_count must be at least 0": int(arrays["evicted_count"]) >= 0,
    }
    for rule, holds in tests.items():
        if not holds:
            raise ValueError(f"state: {rule}")
    return arrays


def _ascend(keys: NDArray[Any], least: int) -> bool:
    return len(keys) == 0 or (int(keys[0]) >= least and bool((keys[1:] > keys[:-1]).all()))
