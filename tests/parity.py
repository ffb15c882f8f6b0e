"""The one comparison between a definition and its fast form."""

from collections.abc import Callable
from typing import Any

import numpy as np


def agree(
    reference: Callable[..., Any], op: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Returns what both functions return for these arguments.

    Asserts that the values are equal and of the same type (an array stands for the list of
    its items), or that both raise the same type of exception with the same text. Where both
    raise, the exception is returned.
    """
    expected, got = _call(reference, args, kwargs), _call(op, args, kwargs)
    if isinstance(expected, Exception) or isinstance(got, Exception):
        assert (type(got), str(got)) == (type(expected), str(expected))
        return expected
    assert got == expected
    assert type(got) is type(expected)
    return expected


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        value = function(*args, **kwargs)
    except Exception as error:  # whatever it is, the other side must raise it too
        return error
    return value.tolist() if isinstance(value, np.ndarray) else value
