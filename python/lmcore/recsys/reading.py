"""Files of interactions: every format, each read at once where nothing is unusual."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from pathlib import Path

from lmcore.ops.interactions import Column
from lmcore.recsys.arranging import arrange
from lmcore.recsys.columns import is_user_column
from lmcore.recsys.ids import IdMap, KnownIds
from lmcore.recsys.integer_files import IntegerReader
from lmcore.recsys.interactions import Interactions
from lmcore.recsys.parquet_files import read_parquet
from lmcore.recsys.rows import Rows
from lmcore.recsys.table_files import (
    Layout,
    TableReader,
    header_layout,
    inter_layout,
    movielens_layout,
)

FORMATS = ("auto", "pairs", "sequences", "inter", "csv", "tsv", "movielens", "parquet")

# The order of lines is that of time by definition; elsewhere it is trusted for want of times.
_ORDERED = ("pairs", "sequences")
_ENDINGS = {".inter": "inter", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_NO_PIPE = "a pipe, and parquet is read from its end: give a file"
_MOVIELENS_NAME = re.compile(r"u\.data|u[1-5ab]\.(base|test)")


def read_interactions(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",  # noqa: A002 - the word that callers expect
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    skip_bad_rows: bool = False,
    id_map: IdMap | None = None,
) -> Interactions:
    r"""Returns the interactions of a file, with users 1..U and items 1..I without gaps.

    Formats, all but `parquet` UTF-8, also packed by gzip, lines without any field passed over:

    - `pairs`: `user item`, integers from 1, separated by spaces or tabs; a user's lines stand
      in time order and need not be neighbours.
    - `sequences`: `user item item ...`, one line per user, in time order.
    - `csv`, `tsv`: fields separated by commas or tabs under a header of names, quoted where they
      hold separators, quotes or line feeds; a CSV header without a comma may have semicolons.
    - `inter`: RecBole's atomic file: fields separated by tabs under a header of `name:type`, users
      and items being tokens and times floats.
    - `movielens`: `user item rating timestamp` without a header, separated by tabs (`u.data`) or
      by `::` (`ratings.dat`).
    - `parquet`: columns of integers, texts, numbers and timestamps (extra `data`).
    - `auto`: by the ending of the name or by a first line of `name:type` fields, fields with `::`
      or with commas, or tabs and a usual name of users; else `pairs` if the first line has up to
      two fields, else `sequences`. A file of sequences whose first user has one item only needs
      `format="sequences"`.

    In formats with columns, ids are any text. Columns that are not named are found by usual names
    (`user_id`, `userId`, `item_id`, `movieId`, `asin`, `timestamp`, `time`, `date` and so on).
    Rows of a user are sorted by time; equal times, and files without a column of them, keep the
    order of the file, and the report says that it was trusted. Times are numbers or ISO dates
    (`2026-01-31`, with a time of day and a zone if need be), and all of one kind. Other columns are
    ignored.

    New ids ascend with the original ones where all of these are integers, so that ids without
    gaps stay as they are; other ids are numbered in the order of the file. Repeated
    interactions are kept. `report` counts all of it.

    Args:
        path: the file.
        format: one of `FORMATS`.
        user: name of the users' column.
        item: name of the items' column.
        time: name of the times' column.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        id_map: takes the items' ids from this map, that of a trained model for example; an
            item outside it makes a bad row. Its users are not used.

    Raises:
        MissingExtra: a parquet file, and pyarrow is not installed.
        OSError: the file cannot be read.
        ValueError: unknown format, a header or a row that cannot be used, ids that differ only by
            white space, or no interactions; the text names file, line and field.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     _ = file.write("who,what,when\nann,cup,7\nbob,cup,9\nann,lamp,3\n"), file.flush()
        ...     interactions = read_interactions(file.name, user="who", item="what", time="when")
        >>> interactions.offsets.tolist(), interactions.items.tolist()
        ([0, 2, 3], [2, 1, 1])
        >>> interactions.item_ids
        ('cup', 'lamp')
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}: got {format!r}")
    name = os.fspath(path)
    columns = {"user": user, "item": item, "time": time}
    known = None if id_map is None else KnownIds(id_map.items)
    skipped: list[str] = []
    listed = skipped if skip_bad_rows else None
    if format == "parquet" and Path(path).is_fifo():
        raise ValueError(f"{name}: {_NO_PIPE}")
    data = b"" if format == "parquet" else _read_bytes(Path(path))
    kind = _guess_format(name, data, user) if format == "auto" else format
    if kind in _ORDERED and any(columns.values()):
        given = next(role for role, column in columns.items() if column is not None)
        raise ValueError(
            f"{name}: {given} (--{given}) names a column, and files of {kind} have no names"
        )
    rows = _read_rows(name, data, kind, known, listed, columns)
    del data
    if not len(rows.items.codes if isinstance(rows.items, Column) else rows.items):
        tail = f" ({len(skipped)} rows skipped, the first: {skipped[0]})" if skipped else ""
        raise ValueError(f"{name}: there are no interactions{tail}")
    trusted = rows.times is None and kind not in _ORDERED
    rules = {"is_order_trusted": trusted, "tells_blanks": kind == "inter"}
    return arrange(name, rows, skipped, id_map, **rules)


def _read_rows(
    path: str,
    data: bytes,
    kind: str,
    known: KnownIds | None,
    skipped: list[str] | None,
    columns: dict[str, str | None],
) -> Rows:
    if kind == "parquet":
        return read_parquet(path, known, skipped, **columns)
    reader: IntegerReader | TableReader
    if kind in _ORDERED:
        reader = IntegerReader(path, data, kind)
    else:
        reader = TableReader(path, data, _find_layout(path, data, kind, columns))
    rows = reader.read_fast(known)
    return reader.read_carefully(known, skipped) if rows is None else rows


def _find_layout(path: str, data: bytes, kind: str, columns: dict[str, str | None]) -> Layout:
    if kind == "inter":
        return inter_layout(path, data, **columns)
    if kind == "movielens":
        return movielens_layout(path, data, **columns)
    return header_layout(path, data, "," if kind == "csv" else "\t", **columns)


def _read_bytes(path: Path) -> bytes:
    """The text of a file, with line feeds alone; its first bytes only where it is parquet."""
    with path.open("rb", buffering=0) as file:
        head = file.read(4) or b""
        if head == b"PAR1":
            if not file.seekable():
                raise ValueError(f"{path}: {_NO_PIPE}")
            return head
        if file.seekable():
            file.seek(0)
            head = b""
        rest = file.readall()
    data = head + rest if head else rest
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: not a whole gzip file: {error}") from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    # One byte is found far sooner than two.
    return data.replace(b"\r\n", b"\n") if b"\r" in data else data


def _guess_format(path: str, data: bytes, user: str | None) -> str:
    name = Path(path).name.removesuffix(".gz")
    ending = Path(name).suffix.lower()
    if data == b"PAR1":
        return "parquet"
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    first = next((line for line in data.split(b"\n", 64) if line.strip()), b"")
    if b"\n" in first:  # 64 empty lines, then the rest
        first = first.lstrip().partition(b"\n")[0]
    if b"::" in first or _MOVIELENS_NAME.fullmatch(name):
        return "movielens"
    columns = first.split(b"\t")
    if all(b":" in column for column in columns):
        return "inter"
    if b"," in first:
        return "csv"
    names = [column.decode(errors="replace") for column in columns]
    if len(names) > 1 and any(is_user_column(name, user) for name in names):
        return "tsv"
    return "pairs" if len(first.split()) <= 2 else "sequences"
