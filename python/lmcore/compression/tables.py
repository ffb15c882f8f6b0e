"""Parquet tables with a column of lists of ids, rewritten for a smaller vocabulary."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._extras import optional_imports
from lmcore._files import find_file, naming_errors, whole_file
from lmcore.compression.remapping import NEW_DTYPES, Progress, RemapSummary, Rules
from lmcore.compression.retokenization import Translator

_ROWS_AT_ONCE = 1 << 12


def remap_table(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    column: str,
    rules: Rules,
    progress: Progress | None,
) -> RemapSummary:
    """Writes a table with new ids in a column, and returns what became of the old ones.

    It is what `lmcore.compression.remap_file` does with a parquet file.

    Args:
        source: the parquet file.
        target: the output.
        column: of lists of ids.
        rules: what becomes of old ids.
        progress: called with the bytes of the source done so far.

    Raises:
        ImportError: pyarrow is not installed.
        OSError: a file cannot be read or written.
        ValueError: the file is broken, or lacks such a column; or as for `remap_file`.

    Example:
        >>> import pyarrow, tempfile
        >>> from pathlib import Path
        >>> from pyarrow import parquet
        >>> from lmcore.compression import remap_file
        >>> from lmcore.compression.record import Record, write_record
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(folder, Record(source="ab", vocabulary_ids=[0, 7]))
        ...     source, target = Path(folder, "a.parquet"), Path(folder, "b.parquet")
        ...     parquet.write_table(pyarrow.table({"input_ids": [[7, 0], [7]]}), source)
        ...     _ = remap_file(source, target, folder)
        ...     parquet.read_table(target)["input_ids"].to_pylist()
        [[1, 0], [1]]
    """
    with optional_imports():
        import pyarrow
        from pyarrow import parquet

    name = os.fspath(source)
    find_file(target, [source])
    with open(source, "rb") as raw, _naming_broken(name):
        file = parquet.ParquetFile(raw)
        size, rows = os.fstat(raw.fileno()).st_size, max(file.metadata.num_rows, 1)
        kind = _find_kind(name, file.schema_arrow, column)
        default = kind.name if kind.name in NEW_DTYPES else "int64"
        dtype = rules.choose_dtype(default)
        parts = (
            _take_ids(name, batch.column(0))[0]
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column])
        )
        translator, summary = rules.make(name, parts, dtype)
        _check_lengths(name, file.schema_arrow, column, translator)
        place = file.schema_arrow.get_field_index(column)
        field = pyarrow.field(column, pyarrow.large_list(pyarrow.from_numpy_dtype(dtype)))
        schema = file.schema_arrow.set(place, field)
        done = new_tokens = 0
        with (
            whole_file(target, [source]) as path,
            naming_errors(target, path),
            parquet.ParquetWriter(path, schema) as writer,
        ):
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                new = _translate(name, batch.column(place), translator, field.type)
                writer.write_batch(batch.set_column(place, field, new))
                new_tokens += len(new.values)
                done += batch.num_rows
                if progress is not None:
                    progress(size * done // rows)
    return summary.complete(translator, new_tokens)


@contextmanager
def _naming_broken(name: str) -> Iterator[None]:
    """Within it, what pyarrow says of a broken file names the file."""
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = (str(error).splitlines() or ["broken"])[0]
        raise ValueError(f"{name}: not a usable parquet file: {reason:.200}") from None


def _find_kind(name: str, schema: Any, column: str) -> np.dtype[Any]:
    """The type of the ids."""
    import pyarrow

    fields = {field.name: field.type for field in schema}
    kind: Any = fields.get(column)
    is_list = kind is not None and (
        pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
    )
    if not is_list or not pyarrow.types.is_integer(kind.value_type):
        found = ", ".join(fields) if kind is None else str(kind)
        raise ValueError(
            f"{name}: expected lists of ids in the column {column!r:.60}, got {found:.100}"
        )
    found_kind: np.dtype[Any] = np.dtype(kind.value_type.to_pandas_dtype())
    return found_kind


def _check_lengths(name: str, schema: Any, column: str, translator: Translator) -> None:
    """Other lists of a row go with the ids one by one."""
    import pyarrow

    if translator.keeps_lengths:
        return
    others = [field.name for field in schema if pyarrow.types.is_nested(field.type)]
    others.remove(column)
    if others:
        raise ValueError(
            f"{name}: its lists {', '.join(others):.100} would no longer be as long as the ids: "
            "take them out, or give --fill ID"
        )


def _take_ids(name: str, lists: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """All ids of lists one behind the other, and how many each has."""
    from pyarrow import compute

    values = lists.flatten()
    if values.null_count:
        raise ValueError(f"{name}: a list of ids holds nothing in place of an id")
    lengths = compute.fill_null(compute.list_value_length(lists), 0)
    return values.to_numpy(zero_copy_only=False), lengths.to_numpy(zero_copy_only=False)


def _translate(name: str, lists: Any, translator: Translator, kind: Any) -> Any:
    import pyarrow

    ids, lengths = _take_ids(name, lists)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    new, new_starts = translator.translate(ids, starts)
    offsets = pyarrow.array(np.append(new_starts, len(new)).astype(np.int64))
    mask = lists.is_null() if lists.null_count else None
    return pyarrow.LargeListArray.from_arrays(offsets, pyarrow.array(new), type=kind, mask=mask)
