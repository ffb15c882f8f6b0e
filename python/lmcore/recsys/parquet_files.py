"""Parquet files of interactions, by the extra `data`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._extras import optional_imports
from lmcore.ops.interactions import Column
from lmcore.recsys.columns import find_columns
from lmcore.recsys.ids import KnownIds
from lmcore.recsys.rows import Rows, reject
from lmcore.recsys.times import Times, shorten, time_kind, time_problem, to_float_times, to_times

__all__: list[str] = []


def read_parquet(
    path: str, known: KnownIds | None, skipped: list[str] | None, **columns: str | None
) -> Rows:
    """Returns the rows of a parquet file; a bad one is listed in `skipped`, or raises.

    Args:
        path: of the file.
        known: items that a row may hold; None: any.
        skipped: where bad rows are listed; None: they raise.
        columns: names of `user`, `item` and `time`; None: usual ones.

    Raises:
        MissingExtra: pyarrow is not installed.
        OSError: the file cannot be read.
        ValueError: it is no such file, a column cannot be used, or a row that is not skipped.
    """
    with optional_imports():
        import pyarrow as pa
        import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            places = find_columns(path, names, **columns)
            chosen = [names[place] for place in places if place is not None]
            table = file.read(columns=chosen)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path}: not a parquet file: {_first_line(error)}") from None
    read = [_Part(path, name, table.column(name).combine_chunks()) for name in chosen]
    bad = np.zeros(table.num_rows, dtype=bool)
    users, items = (part.read_ids() for part in read[:2])
    if known is not None:
        read[1].refuse(~known.holds(items), "is not in the id map")
    times = read[2].read_times() if len(read) > 2 else None
    for part in read:
        bad |= part.is_bad
    for row in np.flatnonzero(bad).tolist():
        problem = next(part.problem(row) for part in read if part.is_bad[row])
        reject(f"{path}: row {row + 1}: {problem}", skipped)
    kept = np.flatnonzero(~bad)
    if len(kept) < len(bad):
        users, items = _take(users, kept), _take(items, kept)
        times = None if times is None else times.take(kept)
    return Rows(users, items, times)


class _Part:
    """One column, and which of its values cannot be used."""

    def __init__(self, path: str, name: str, values: Any) -> None:
        import pyarrow as pa

        self.path, self.name, self.values = path, name, values
        self.kind = values.type
        if pa.types.is_dictionary(self.kind):
            self.kind = self.kind.value_type
        self.is_bad = np.asarray(values.is_null())
        self.problems: list[tuple[NDArray[np.bool_], str]] = [(self.is_bad.copy(), "is empty")]

    def refuse(self, is_bad: NDArray[np.bool_], problem: str) -> None:
        """Notes what is wrong with some values; what was noted before counts."""
        self.problems.append((is_bad, problem))
        self.is_bad |= is_bad

    def problem(self, row: int) -> str:
        text = next(text for is_bad, text in self.problems if is_bad[row])
        got = "" if text == "is empty" else f": got {shorten(str(self.values[row].as_py()))!r}"
        return f"{self.name} {text}{got}"

    def read_ids(self) -> NDArray[np.int64] | Column:
        import pyarrow as pa

        if pa.types.is_integer(self.kind):
            numbers = self._numbers(pa.int64())
            if not len(numbers) or int(numbers.min()) >= 0:
                return numbers
            ids, codes = np.unique(numbers, return_inverse=True)
            return Column(codes.astype(np.int32), list(map(str, ids.tolist())))
        if not self._is_text():
            raise ValueError(
                f"{self.path}: ids are integers or texts: column {self.name} is of {self.kind}"
            )
        column = self._labels()
        empty = np.array([not name for name in column.names] or [False])
        if column.names:
            self.refuse(empty[column.codes], "is empty")
        return column

    def read_times(self) -> Times:
        import pyarrow as pa

        if pa.types.is_integer(self.kind):
            return Times(self._numbers(pa.int64()), None, "int64")
        if pa.types.is_timestamp(self.kind) or pa.types.is_date(self.kind):
            return Times(self._numbers(pa.timestamp("ns")), None, "datetime64[ns]")
        if pa.types.is_floating(self.kind):
            numbers = np.asarray(self.values.cast(pa.float64()).fill_null(0.0))
            finite = np.isfinite(numbers)
            self.refuse(~finite, "must be finite")
            return to_float_times(np.where(finite, numbers, 0.0))
        if not self._is_text():
            raise ValueError(
                f"{self.path}: times are numbers or dates: column {self.name} is of {self.kind}"
            )
        column = self._labels()
        kind = next((time_kind(name) for name in column.names if time_kind(name)), None)
        usable = next((name for name in column.names if time_kind(name) == kind), "0")
        texts = list(column.names)
        for number, text in enumerate(texts):
            problem = time_problem(text, kind, takes_dates=True)
            if problem is not None:
                self.refuse(column.codes == number, problem.partition(": got")[0])
                texts[number] = usable
        times = to_times(texts or ["0"], takes_dates=True)
        return times.take(column.codes)

    def _is_text(self) -> bool:
        import pyarrow as pa

        return bool(pa.types.is_string(self.kind) or pa.types.is_large_string(self.kind))

    def _numbers(self, kind: Any) -> NDArray[np.int64]:
        import pyarrow as pa

        values = self.values
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        try:
            if pa.types.is_date(self.kind):
                values = values.cast(pa.timestamp("s"))
            if pa.types.is_timestamp(values.type) and values.type.tz is not None:
                values = values.cast(pa.timestamp(values.type.unit))
            cast = values.cast(kind)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self.path}: column {self.name}: {_first_line(error)}") from None
        if pa.types.is_timestamp(kind):
            cast = cast.view(pa.int64())
        return np.asarray(cast.fill_null(0))

    def _labels(self) -> Column:
        values = self.values
        coded = values if hasattr(values, "dictionary") else values.dictionary_encode()
        names = [name or "" for name in coded.dictionary.to_pylist()]
        codes = np.asarray(coded.indices.fill_null(0), dtype=np.int32)
        if len(codes) and not names:
            names = [""]
        # A dictionary may name a value twice, in any order, and one that no row has.
        known: dict[str, int] = {}
        firsts = np.full(len(names), len(codes), dtype=np.int64)
        np.minimum.at(firsts, codes, np.arange(len(codes)))
        table = np.zeros(len(names), dtype=np.int32)
        for number in np.argsort(firsts, kind="stable").tolist():
            if firsts[number] < len(codes):
                table[number] = known.setdefault(names[number], len(known))
        return Column(table[codes], list(known))


def _take(values: NDArray[np.int64] | Column, rows: NDArray[Any]) -> NDArray[np.int64] | Column:
    """Values at these places; of a column only names that are left."""
    if not isinstance(values, Column):
        return np.asarray(values[rows])
    codes = values.codes[rows]
    numbers, firsts, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    ranks = np.empty(len(order), dtype=np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return Column(ranks[inverse], [values.names[number] for number in numbers[order].tolist()])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
