"""How many threads the functions start: as many as asked for, up to four for each core."""

import warnings

from lmcore import _core
from lmcore.reference._arguments import check_int

_PER_CORE = 4


def most_threads() -> int:
    """Returns the most threads that a call starts: four for each core that the process may use.

    More than that only wait for each other, and each takes memory.

    Example:
        >>> most_threads() % 4
        0
    """
    return _core.most_threads()


def limit_threads(threads: int | None) -> int | None:
    """Returns how many threads to start; warns where that is less than was asked for.

    The core never starts more threads than there is work for, nor more than this. Results do
    not depend on the number, so that asking for too many is no error.

    Args:
        threads: at least 1; None stands for one a core.

    Raises:
        TypeError: it is no integer.
        ValueError: it is below 1.

    Warns:
        RuntimeWarning: it is more than `most_threads()`, which is taken instead.

    Example:
        >>> limit_threads(1)
        1
    """
    if threads is None:
        return None
    number = check_int("threads", threads, 1)
    if number <= _PER_CORE:
        return number  # whatever the machine has: asking it takes longer than a small batch
    most = most_threads()
    if number > most:
        text = f"threads: {number} are more than 4 for each core: {most} are started"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    return min(number, most)
