"""What definitions and ops ask of their arguments, in one place.

The facade makes arrays of the right dtype, order and alignment; the core checks shapes and values,
and the definition checks the same here, so that both raise the same errors with the same texts.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence, Sized
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

# Makes the error of a number that does not fit: from its index, and the number itself.
Refuse: TypeAlias = Callable[[tuple[int, ...], int], Exception]
# Of 8 bytes each; more are a view of few.
_MOST_OBJECTS = 1 << 32


def check_int(
    name: str,
    value: object,
    least: int,
    end: int | None = None,
    *,
    most: int | None = None,
    optional: bool = False,
) -> int:
    """Returns the value as an int, or raises TypeError or ValueError.

    Args:
        name: of the argument, for errors.
        value: an integer of any type but bool.
        least: the least that is allowed.
        end: one more than the most that is allowed; None for no bound.
        most: the same as `end`, where errors shall say "at most".
        optional: whether the argument may be None, for errors: None itself is not asked here.
    """
    kind = "an int or None" if optional else "an int"
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be {kind}: got {type(value).__name__}") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be {kind}: got bool")
    in_range(name, number, least, end, most=most)
    return number


def as_float(name: str, value: object) -> float:
    """Returns a real number as a float, or raises TypeError or ValueError.

    Args:
        name: of the argument, for errors.
        value: a number of any real type but bool.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number: got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that 64 bits hold") from None


def in_range(
    name: str, value: int, least: int, end: int | None = None, *, most: int | None = None
) -> None:
    """Raises ValueError unless a number is in its range; see `check_int`."""
    if _is_outside(value, least, end, most):
        raise ValueError(f"{name} must be {_describe(least, end, most)}: got {value}")


def id_in_range(
    name: str,
    index: int,
    value: int,
    least: int,
    end: int | None = None,
    *,
    most: int | None = None,
    row: int | None = None,
) -> None:
    """Raises IndexError unless an id or column names something.

    Args:
        name: of the argument, for errors.
        index: which of its ids it is.
        value: the id.
        least: the first id.
        end: one more than the last.
        most: the last, where errors shall say "at most".
        row: which row it stands in, where there are rows.
    """
    if _is_outside(value, least, end, most):
        raise no_such_id(name, index, value, least, end, most=most, row=row)


def no_such_id(
    name: str,
    index: int,
    value: int,
    least: int,
    end: int | None = None,
    *,
    most: int | None = None,
    row: int | None = None,
) -> IndexError:
    """Returns the error of an id that names nothing; see `id_in_range`."""
    got = value if row is None else f"{value} (row {row})"
    return IndexError(f"{name}[{index}] must be {_describe(least, end, most)}: got {got}")


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raises ValueError unless a name is one of those that exist."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}: got {value!r}")


def same_length(**sequences: Sized) -> None:
    """Raises ValueError unless two arguments, given by their names, are of one length."""
    (first, one), (second, other) = sequences.items()
    if len(one) != len(other):
        raise ValueError(
            f"{first} and {second} must have the same length: got {len(one)} and {len(other)}"
        )


def _is_outside(value: int, least: int, end: int | None, most: int | None) -> bool:
    is_above = (end is not None and value >= end) or (most is not None and value > most)
    return value < least or is_above


def _describe(least: int, end: int | None, most: int | None) -> str:
    if most is not None:
        return f"at least {least} and at most {most}"
    if end is None:
        return f"at least {least}"
    # Long powers of two are read better as such.
    is_power = end >= 1 << 24 and end & (end - 1) == 0
    return f"at least {least} and below " + (f"2**{end.bit_length() - 1}" if is_power else str(end))


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
            index = tuple(map(int, np.unravel_index(outside.argmax(), outside.shape)))
            raise (refuse or _out_of_range(name, bounds))(index, int(array[index]))
    return np.require(array, dtype=dtype, requirements=["C", "A"])


def as_floats(name: str, values: ArrayLike, shape: str) -> NDArray[np.float64]:
    """Returns an array that the core can borrow: float64, aligned, in C order.

    Args:
        name: of the argument, for errors.
        values: numbers of any real type.
        shape: as errors write it, with a comma between dimensions.

    Raises:
        TypeError: values that are no real numbers.
        ValueError: another number of dimensions.

    Example:
        >>> as_floats("losses", [1, 2], "[B]")
        array([1., 2.])
    """
    import numpy as np

    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers: got {array.dtype}")
    if array.ndim != shape.count(",") + 1:
        raise ValueError(f"{name} must have the shape {shape}: got {list(array.shape)}")
    return np.require(array, dtype=np.float64, requirements=["C", "A"])


def as_native(array: NDArray[Any]) -> NDArray[Any]:
    """Returns an array that the core can borrow: native byte order, aligned, in C order."""
    import numpy as np

    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])


def _as_objects(name: str, values: ArrayLike, array: NDArray[Any]) -> NDArray[Any]:
    """Integers that fit no type of numpy are objects, or floats without their last digits."""
    import numpy as np

    objects = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    if objects.dtype == object and objects.size >= _MOST_OBJECTS:  # a view: each would be looked at
        raise MemoryError(f"not enough memory for {objects.size} values")
    if objects.dtype != object or not all(
        isinstance(item, (int, np.integer)) and not isinstance(item, bool) for item in objects.flat
    ):
        raise TypeError(f"{name} must be integers: got {array.dtype}")
    return objects


def _out_of_range(name: str, bounds: np.iinfo[Any]) -> Refuse:
    least = f"-2**{bounds.bits - 1}" if bounds.min else "0"
    end = f"2**{bounds.bits - (bounds.min < 0)}"

    def refuse(index: tuple[int, ...], number: int) -> Exception:
        where = f"[{', '.join(map(str, index))}]" if index else ""
        return ValueError(f"{name}{where} must be at least {least} and below {end}: got {number}")

    return refuse
