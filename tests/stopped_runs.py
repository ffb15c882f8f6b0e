"""Runs that end in the midst of it, as those do that are killed."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

from lmcore.openba.documents import read_documents


class Stop(BaseException):
    """Ends a run in the midst of it."""


def stop_after(count: int) -> Any:
    """A reader of documents that ends the run behind some of them."""

    def stop(files: Any, **options: Any) -> Iterator[Any]:
        yield from itertools.islice(read_documents(files, **options), count)
        raise Stop

    return stop


def read_present(paths: Iterable[Path]) -> list[bytes]:
    """What is in files; one that its process renames or removes meanwhile is left out."""
    contents = []
    for path in paths:
        try:
            contents.append(path.read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return contents


def wait_for_change(look: Callable[[], Any], process: "Popen[str]", before: Any) -> None:
    """Until what a process writes is another than before."""
    end = time.monotonic() + 60
    while look() == before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
