"""What definitions and ops ask of their arguments, in one place."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

# Makes the error of a number that does not fit: from where it stands, and the number itself.
Refuse: TypeAlias = Callable[[tuple[int, ...], int], Exception]


def check_int(name: str, value: object, least: int, end: int | None) -> int:
    """Returns the value as an int in `least` to `end` - 1, or raises TypeError or ValueError."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an int: got {type(value).__name__}") from None
    if end is None:
        if number < least:
            raise ValueError(f"{name} must be at least {least}: got {number}")
    elif not least <= number < end:
        is_power = end >= 1 << 24 and end & (end - 1) == 0
        limit = f"2**{end.bit_length() - 1}" if is_power else str(end)
        raise ValueError(f"{name} must be at least {least} and below {limit}: got {number}")
    return number


def as_integers(
    name: str,
    values: ArrayLike,
    shape: str | None,
    refuse: Refuse | None = None,
    *,
    dtype: Literal["int64", "uint64"] = "int64",
) -> NDArray[Any]:
    """Returns an array that the core can borrow: int64 or uint64, aligned, in C order.

    Args:
        name: of the argument, for errors.
        values: integers of any type, also Python's.
        shape: as errors write it, with a comma between dimensions; None for any.
        refuse: makes the error of the first number that the dtype cannot hold; without it, a
            ValueError that names its range.
        dtype: of the result.

    Raises:
        TypeError: values that are not integers.
        ValueError: another number of dimensions, or what `refuse` says.

    Example:
        >>> as_integers("users", [1, 2], "[B]").dtype
        dtype('int64')
    """
    import numpy as np

    array = np.asarray(values)
    fits = shape is None or array.ndim == shape.count(",") + 1
    if array.size and array.dtype.kind not in "iu":
        if not fits and isinstance(values, np.ndarray):
            _as_objects(name, array.flat[:1], array)  # a view may have any number of items
        else:
            array = _as_objects(name, values, array)
    if not fits:
        raise ValueError(f"{name} must have the shape {shape}: got {list(array.shape)}")
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    if array.size and not np.can_cast(array.dtype, dtype):
        bounds = np.iinfo(dtype)
        outside = array < bounds.min
        if array.dtype.kind != "i":
            outside = outside | (array > bounds.max)
        if outside.any():
            place = tuple(map(int, np.unravel_index(outside.argmax(), outside.shape)))
            raise (refuse or _out_of_range(name, bounds))(place, int(array[place]))
    return np.require(array, dtype=dtype, requirements=["C", "A"])


def as_native(array: NDArray[Any]) -> NDArray[Any]:
    """Returns an array that the core can borrow: native byte order, aligned, in C order."""
    import numpy as np

    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])


def _as_objects(name: str, values: ArrayLike, array: NDArray[Any]) -> NDArray[Any]:
    """Integers that fit no type of numpy are objects, or floats without their last digits."""
    import numpy as np

    objects = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    if objects.dtype != object or not all(
        isinstance(item, (int, np.integer)) and not isinstance(item, bool) for item in objects.flat
    ):
        raise TypeError(f"{name} must be integers: got {array.dtype}")
    return objects


def _out_of_range(name: str, bounds: np.iinfo[Any]) -> Refuse:
    least = f"-2**{bounds.bits - 1}" if bounds.min else "0"
    end = f"2**{bounds.bits - (bounds.min < 0)}"

    def refuse(place: tuple[int, ...], number: int) -> Exception:
        where = f"[{', '.join(map(str, place))}]" if place else ""
        return ValueError(f"{name}{where} must be at least {least} and below {end}: got {number}")

    return refuse
