"""Minimum Bayes risk: of several generated texts the one that the others agree with most."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

from lmcore._rows import RowWriter
from lmcore._streams import name_input
from lmcore.diffusion.generations import SEVERAL, Generation, read_generations
from lmcore.ops import ngrams

# Rows of each file that are held at once.
_ROWS_AT_ONCE = 1 << 12


@dataclass(kw_only=True, slots=True, frozen=True)
class ChoiceSummary:
    """What was chosen."""

    rows: int
    """Rows that were written."""
    chosen: tuple[int, ...]
    """How many of them came from each file."""


def choose_candidates(
    files: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    threads: int | None = None,
) -> ChoiceSummary:
    r"""Returns how many rows were written: of each row of the files, one of them.

    Each file holds a text for the same sources in the same order, such as one seed's. Of the texts
    for a source the one is written whose sentence BLEU against the others is largest in sum, with
    all else that stands in its row; of equal ones that of the first file. The strings "[CLS]" and
    "[SEP]" are removed, spaces around them stay.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), its evaluator; see
    `lmcore.ops.ngrams.choose_candidates`.

    Args:
        files: JSONL with `recover`, `reference` and `source`; `.gz` is decompressed, and one of
            them may be `-`, standard input.
        output: JSONL; `.gz` is compressed, `-` is standard output.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: no file, one that is named twice or is the output, files of different length or
            with another order of sources, or a row that cannot be used; the text names file and
            line.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = [Path(folder, f"{seed}.jsonl") for seed in range(3)]
        ...     for file, text in zip(files, ["a b d", "a c d", "a b c d"]):
        ...         row = {"recover": text, "reference": "b", "source": "c"}
        ...         _ = file.write_text(json.dumps(row) + "\n")
        ...     choose_candidates(files, Path(folder, "mbr.jsonl"))
        ChoiceSummary(rows=1, chosen=(0, 0, 1))
    """
    names = [name_input(file) for file in files]
    if not names:
        raise ValueError("files must hold at least one file")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"{name}: the file is named twice")
    rows = _read_together(files, names)
    chosen = [0] * len(files)
    with RowWriter(output, files) as writer:
        while block := list(islice(rows, _ROWS_AT_ONCE)):
            texts = [[value["recover"] for value in row] for row in block]
            best = ngrams.choose_candidates(texts, threads=threads).best.tolist()
            for row, index in zip(block, best, strict=True):
                chosen[index] += 1
                writer.write(row[index])
    return ChoiceSummary(rows=sum(chosen), chosen=tuple(chosen))


def _read_together(
    files: Sequence[str | os.PathLike[str]], names: list[str]
) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of all files that belong together."""
    readers = [read_generations(file) for file in files]
    for number, rows in enumerate(zip_longest(*readers), 1):
        _check_rows(rows, names, number)
        yield [row.value for row in rows]


def _check_rows(rows: Sequence[Generation | None], names: list[str], number: int) -> None:
    ended = [name for name, row in zip(names, rows, strict=True) if row is None]
    if ended:
        line, name = next(
            (row.line, name) for name, row in zip(names, rows, strict=True) if row is not None
        )
        raise ValueError(f"{ended[0]}: ends after {number - 1} rows, and {name}:{line} goes on")
    first = rows[0]
    for name, row in zip(names, rows, strict=True):
        assert first is not None
        assert row is not None
        for key in ("source", "reference", SEVERAL):
            if row.value.get(key) != first.value.get(key):
                raise ValueError(
                    f"{name}:{row.line}: {key} is another than in {names[0]}:{first.line}; the "
                    "files must hold the same sources in the same order"
                )
