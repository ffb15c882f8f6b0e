"""Folders of data: the authors', and those of the library `datasets` (extra `data`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmcore._extras import optional_imports
from lmcore.ner.labels import check_types

LABELS = "label.txt"

_WORDS = ("words", "tokens")
_LABELS = ("labels", "ner_tags", "tags", "ner_labels")


def read_labels(folder: Path) -> list[str]:
    r"""Returns the entity types of the authors' folder: the lines of `label.txt`.

    Args:
        folder: where it stands.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8, or a line is no type.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     _ = Path(name, "label.txt").write_text("person\ncity\n")
        ...     read_labels(Path(name))
        ['person', 'city']
    """
    file = folder / LABELS
    data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        lines = [line.strip() for line in data.decode().splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 at byte {error.start + 1}") from None
    types = [line for line in lines if line]
    try:
        check_types(types)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return types


def open_dataset(folder: Path, split: str) -> Table:
    """Returns the sentences of a folder that `save_to_disk` wrote.

    Args:
        folder: of a data set, or of several splits.
        split: which of them.

    Raises:
        ImportError: the library `datasets` is not installed.
        ValueError: the folder is none of it, or lacks the split or a column.
    """
    if not list_files(folder):
        raise ValueError(
            f"{folder}: expected label.txt and {split}.txt, or what save_to_disk of datasets "
            "writes: got neither"
        )
    with optional_imports():
        import datasets

    try:
        data: Any = datasets.load_from_disk(os.fspath(folder))
    except Exception as error:  # a folder that is something else makes the loader fail in any way
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ValueError(f"{folder}: datasets cannot read it: {reason[0]}") from None
    if isinstance(data, datasets.DatasetDict):
        if split not in data:
            raise ValueError(f"{folder}: there is no split {split!r}: got {', '.join(data)}")
        data = data[split]
    return Table(folder, data)


def list_files(folder: Path) -> list[str | os.PathLike[str]]:
    """Returns the files of a folder that `save_to_disk` wrote; none if it did not.

    Args:
        folder: any folder.

    Example:
        >>> list_files(Path("tests"))
        []
    """
    is_saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return [*folder.rglob("*")] if is_saved else []


class Table:
    """Words and labels of a data set of the library `datasets`, a row at a time.

    Args:
        folder: for errors.
        data: the data set.

    Raises:
        ValueError: it lacks the columns.
    """

    def __init__(self, folder: Path, data: Any) -> None:
        columns = {}
        for what, names in (("words", _WORDS), ("labels", _LABELS)):
            found = [name for name in names if name in data.column_names]
            if not found:
                raise ValueError(
                    f"{folder}: expected a column of {what}, one of {', '.join(names)}: "
                    f"got {', '.join(data.column_names)}"
                )
            columns[what] = found[0]
        self._data = data.select_columns([*columns.values()])
        self._words, self._labels = columns["words"], columns["labels"]
        # Numbers of classes, whose names the features hold.
        feature = getattr(data.features[self._labels], "feature", None)
        self._names: list[str] | None = getattr(feature, "names", None)
        labels = self._names or []
        self.types = [*dict.fromkeys(label[2:] for label in labels if label[1:2] == "-")]
        """The types that its features name."""

    def __iter__(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yields words and labels."""
        names = self._names
        for row in self._data:
            labels = row[self._labels]
            yield row[self._words], labels if names is None else [names[n] for n in labels]
