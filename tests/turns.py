"""Several processes run tests side by side; a test that measures time has the machine alone."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def take_turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Waits until a test may run beside those that run, or alone, in the order of asking."""
    with (folder / "queue").open("w") as queue, (folder / "room").open("w") as room:
        # Who waits for an empty room keeps the queue, so that nobody enters before.
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            # Closing is not enough: a process that the test forked has the file open as well.
            fcntl.flock(room, fcntl.LOCK_UN)
