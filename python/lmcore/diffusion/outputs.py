"""Names of the files of several seeds, and an input that each of them reads."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lmcore._files import find_output
from lmcore._streams import is_standard, name_input, open_input

_STANDARD_INPUT = "/dev/stdin"


def name_outputs(out: str | os.PathLike[str], seeds: Sequence[int]) -> dict[int, str]:
    """Returns the names of the files of several seeds.

    Args:
        out: what they begin with; endings `.jsonl` and `.gz` go behind the seed, and `-` is
            standard output, for one seed.
        seeds: each once.

    Raises:
        ValueError: there are none, one stands there twice or is out of its range, several go to
            standard output, or there is nothing to begin names with.

    Example:
        >>> name_outputs("out", [3]), name_outputs("a.jsonl.gz", [0])
        ({3: 'out.seed3.jsonl'}, {0: 'a.seed0.jsonl.gz'})
    """
    name = os.fspath(out)
    if not seeds or len({*seeds}) < len(seeds):
        raise ValueError(f"seeds must be at least one, each once: got {[*seeds]!s:.60}")
    wrong = [seed for seed in seeds if not 0 <= seed < 1 << 64]
    if wrong:
        raise ValueError(f"seeds must be at least 0 and below 2**64: got {wrong[0]}")
    if is_standard(name):
        if len(seeds) > 1:
            raise ValueError(
                f"seeds must be one where rows go to standard output: got {len(seeds)}"
            )
        return {seeds[0]: name}
    end = ".gz" if name.endswith(".gz") else ""
    begin = name.removesuffix(".gz").removesuffix(".jsonl")
    if not os.path.basename(begin):  # noqa: PTH119 - a Path takes the `/` off
        raise ValueError(f"{name}: the names of outputs must begin with something")
    return {seed: f"{begin}.seed{seed}.jsonl{end}" for seed in seeds}


def check_outputs(
    targets: dict[int, str], source: str | os.PathLike[str], *others: str | os.PathLike[str]
) -> None:
    """Checks that outputs can be written and none of them is the input, before any work is done.

    Args:
        targets: of `name_outputs`.
        source: the pairs.
        others: outputs besides, such as a page.

    Raises:
        OSError: an output cannot be written.
        ValueError: an output is the input, or two are one file.

    Example:
        >>> check_outputs({0: "-"}, "-")
    """
    inputs = [_STANDARD_INPUT if is_standard(source) else source]
    for output in (*targets.values(), *others):
        if not is_standard(output):
            find_output(output, inputs)
    names = {os.path.realpath(target) for target in targets.values()}
    for other in others:
        if os.path.realpath(other) in names:
            raise ValueError(f"{os.fspath(other)}: rows are written there: name another file")


@contextmanager
def read_again(source: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yields a file that can be read several times with an input's bytes, and the input's name.

    Args:
        source: a file, which is yielded as it is; a pipe or `-`, which are copied to a file that
            is removed afterwards, decompressed.

    Raises:
        OSError: the input cannot be read, or there is no room for the copy.

    Example:
        >>> with read_again("pairs.jsonl") as (file, name):
        ...     file, name
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'pairs.jsonl'
    """
    name = name_input(source)
    if not is_standard(source) and stat.S_ISREG(os.stat(source).st_mode):  # noqa: PTH116
        yield os.fspath(source), name
        return
    with tempfile.NamedTemporaryFile(prefix="lmcore-") as copy:
        with open_input(source) as file:
            while part := file.read():
                copy.write(part)
        copy.flush()
        yield copy.name, name
