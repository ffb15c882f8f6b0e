"""Pairs of a source and a target text, of the files in which the data sets come.

| form | name ends with | a pair is |
| --- | --- | --- |
| `jsonl` | anything else | an object with `src` and `trg`, as DiffuSeq's files have them |
| `tsv` | `.tsv` | source, tab, target; as Wiki-Auto's files are |
| `csv` | `.csv` | `mr` and `ref`, or `src` and `trg`, below a line of names; as E2E's files are |

All of them also with `.gz`. Several pairs may share a source: then their targets are references of
it, which `group_references` brings together.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lmcore._rows import Progress, RowReader, parse_row

FORMS = ("auto", "jsonl", "tsv", "csv")
_COLUMNS = (("src", "trg"), ("mr", "ref"))


class Pair(NamedTuple):
    """A text, and what it shall become."""

    source: str
    target: str
    """Empty where it is not known."""


class References(NamedTuple):
    """A text, and all that it may become."""

    source: str
    targets: tuple[str, ...]


def find_form(path: str | os.PathLike[str], form: str = "auto") -> str:
    """Returns the form of a file: that which was given, or what its name says.

    Args:
        path: the file.
        form: one of `FORMS`.

    Raises:
        ValueError: there is no such form.

    Example:
        >>> find_form("valid.tsv.gz"), find_form("devset.csv"), find_form("-")
        ('tsv', 'csv', 'jsonl')
    """
    if form not in FORMS:
        raise ValueError(f"format must be one of {', '.join(FORMS)}: got {form!r}")
    if form != "auto":
        return form
    name = os.fspath(path).lower().removesuffix(".gz")
    return next((known for known in ("tsv", "csv") if name.endswith(f".{known}")), "jsonl")


def find_split(folder: str | os.PathLike[str], name: str) -> str | None:
    """Returns the file of a split in a folder; None if there is none.

    Args:
        folder: of a data set.
        name: of the split, such as `train`.

    Raises:
        ValueError: there are several.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "valid.tsv.gz").touch()
        ...     find_split(folder, "valid").endswith("valid.tsv.gz"), find_split(folder, "train")
        (True, None)
    """
    place = Path(folder)
    names = [f"{name}.{form}{end}" for form in FORMS[1:] for end in ("", ".gz")]
    found = [file for file in names if (place / file).is_file()]
    if len(found) > 1:
        raise ValueError(f"{place}: expected one file of {name}, got {' and '.join(found)}")
    return str(place / found[0]) if found else None


class PairParser:
    r"""Makes pairs of the lines of a file.

    Args:
        form: one of `FORMS` but `auto`.
        needs_target: whether a pair must have a target; where it need not and has none, or a blank
            one, its target is empty.

    Example:
        >>> parser = PairParser("tsv", needs_target=False)
        >>> parser.parse(b"a b\tb a"), parser.parse(b"c")
        (Pair(source='a b', target='b a'), Pair(source='c', target=''))
    """

    def __init__(self, form: str, *, needs_target: bool = True) -> None:
        self._form = form
        self._needs_target = needs_target
        self._names: list[str] | None = None
        self._keys: tuple[str, str] = _COLUMNS[0]

    @property
    def has_names(self) -> bool:
        """Whether the first line holds no pair, but the names of the columns."""
        return self._form == "csv"

    def read_names(self, content: bytes) -> None:
        """Takes the names of the columns.

        Args:
            content: of the first line.

        Raises:
            ValueError: there are none that are known.
        """
        names = _split_csv(content)
        keys = next((keys for keys in _COLUMNS if set(keys) <= set(names)), None)
        if keys is None and not self._needs_target:
            keys = next((keys for keys in _COLUMNS if keys[0] in names), None)
        if keys is None:
            raise ValueError(f"expected columns src and trg, or mr and ref: got {names!r:.80}")
        self._names, self._keys = names, keys

    def parse(self, content: bytes) -> Pair:
        """Returns the pair of a line.

        Args:
            content: of the line.

        Raises:
            ValueError: it holds none.
        """
        source, target = self._split(content)
        for key, value in zip(_COLUMNS[0], (source, target), strict=True):
            is_optional = key == _COLUMNS[0][1] and not self._needs_target
            if value is None and is_optional:
                continue
            if value is None:
                raise ValueError(f"{key} is missing")
            if not isinstance(value, str):
                raise ValueError(f"{key} must be a text: got {type(value).__name__}")
            if not value.strip() and not is_optional:
                raise ValueError(f"{key} must not be empty")
        return Pair(str(source), str(target) if target is not None and target.strip() else "")

    def _split(self, content: bytes) -> tuple[Any, Any]:
        if self._form == "jsonl":
            row = parse_row(content)
            return row.get("src"), row.get("trg")
        if self._form == "tsv":
            values = _decode(content).split("\t")
            if len(values) == 1 and not self._needs_target:
                return values[0], None
            if len(values) != 2:
                raise ValueError(f"expected a source, a tab and a target: got {len(values)} parts")
            return values[0], values[1]
        names, values = self._names, _split_csv(content)
        assert names is not None
        if len(values) != len(names):
            raise ValueError(f"expected {len(names)} columns: got {len(values)}")
        source, target = self._keys
        return (
            values[names.index(source)],
            values[names.index(target)] if target in names else None,
        )


class PairReader:
    r"""The pairs of a file, in order; blank lines are passed over.

    Args:
        path: the file; `.gz` is decompressed, `-` is standard input.
        form: one of `FORMS`.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        needs_target: as for `PairParser`.
        progress: called with the bytes read so far.

    Raises:
        ValueError: there is no such form.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.jsonl")
        ...     _ = file.write_text('{"src": "a b", "trg": "b a"}\n{"src": "c"}\n')
        ...     reader = PairReader(file, skip_bad_rows=True)
        ...     pairs = list(reader)
        >>> pairs, reader.bad_rows
        ([Pair(source='a b', target='b a')], 1)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        form: str = "auto",
        skip_bad_rows: bool = False,
        needs_target: bool = True,
        progress: Progress | None = None,
    ) -> None:
        self._form = find_form(path, form)
        self._needs_target = needs_target
        self._rows = RowReader(path, skip_bad_rows=skip_bad_rows, progress=progress)

    @property
    def bad_rows(self) -> int:
        """Rows that could not be used."""
        return self._rows.bad_rows

    @property
    def listed_bad_rows(self) -> list[str]:
        """Place and problem of the first 1000 of them."""
        return self._rows.listed_bad_rows

    def __iter__(self) -> Iterator[Pair]:
        """Yields the pairs.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no rows, a row has no source or no target, or one of them is blank.
        """
        rows, parser = self._rows, PairParser(self._form, needs_target=self._needs_target)
        expects_names, found = parser.has_names, False
        for line, content in rows.contents():
            if expects_names:
                expects_names = False
                # Without its names no line can be read.
                try:
                    parser.read_names(content)
                except ValueError as error:
                    raise ValueError(f"{rows.name}:{line}: {error}") from None
                continue
            try:
                pair = parser.parse(content)
            except ValueError as error:
                rows.refuse(line, str(error))
                continue
            found = True
            yield pair
        if not found and not rows.bad_rows:
            raise ValueError(f"{rows.name}: the file holds no rows")


def group_references(pairs: Iterable[Pair]) -> list[References]:
    """Returns every source once, with all its targets, in the order in which they first come.

    Args:
        pairs: those of a file.

    Example:
        >>> group_references([Pair("a", "b"), Pair("c", "d"), Pair("a", "e")])[0]
        References(source='a', targets=('b', 'e'))
    """
    found: dict[str, list[str]] = {}
    for source, target in pairs:
        found.setdefault(source, []).append(target)
    return [References(source, tuple(targets)) for source, targets in found.items()]


def _decode(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None


def _split_csv(content: bytes) -> list[str]:
    try:
        (values,) = csv.reader([_decode(content)], strict=True)
    except csv.Error as error:
        raise ValueError(f"not a line of CSV: {error}") from None
    return values
