"""Equal texts of all tasks of a pipeline: each task signs its own, and others compare signatures.

A signature is BLAKE2b of 128 bits: the hash of `lmcore.ops.duplicates` resists hostile texts only
under a key that nobody knows, which all tasks would have to share. Those that end alike go to the
same partition, whatever task they come from, so that each partition is searched by itself; the
first text of equal ones stays, in the order of tasks and then of documents, as in one process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._extras import optional_imports
from lmcore.openba.task_files import COUNTS, SIGNATURES, TaskFolder

with optional_imports():
    from datatrove.pipeline.base import PipelineStep

_SIGNATURE = np.dtype([("high", "<u8"), ("low", "<u8"), ("document", "<u4")])
_PLACE = np.dtype("<u4")
_MOST_DOCUMENTS = 2**32 - 1
_MOST_PARTITIONS = 9999


class SignTexts(PipelineStep):  # type: ignore[misc]
    """Writes the signatures of a task's documents, by partition, and hands the documents on.

    Args:
        folder: gets a folder of each partition, with a file of each task.
        partitions: how many there are.

    Raises:
        ValueError: `partitions` is out of its range.

    Example:
        >>> import tempfile
        >>> from datatrove.data import Document
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = list(SignTexts(folder)([Document(text="It rains.", id="1")]))
        ...     Path(folder, "00000/00000.sig").stat().st_size
        20
    """

    type = "duplicates"
    name = "lmcore signatures"

    def __init__(self, folder: str | os.PathLike[str], *, partitions: int = 1) -> None:
        super().__init__()
        if type(partitions) is not int or not 1 <= partitions <= _MOST_PARTITIONS:
            raise ValueError(
                f"partitions must be from 1 to {_MOST_PARTITIONS}: got {partitions!r:.40}"
            )
        self.folder = Path(folder)
        self.partitions = partitions

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Yields the documents that it gets.

        Args:
            data: documents.
            rank: the task.
            world_size: of how many.

        Raises:
            OSError: a file cannot be written.
            ValueError: a task has more than 2**32 - 1 documents.
        """
        TaskFolder(self.folder, "").begin(world_size, {"partitions": self.partitions})
        found = [bytearray() for _ in range(self.partitions)]
        for number, document in enumerate(data or ()):
            if number >= _MOST_DOCUMENTS:
                raise ValueError(f"task {rank} has more than {_MOST_DOCUMENTS} documents")
            digest = hashlib.blake2b(document.text.encode(), digest_size=16).digest()
            # The last bytes choose: the first ones are compared first.
            part = found[int.from_bytes(digest[12:], "little") % self.partitions]
            part += digest
            part += number.to_bytes(4, "little")
            yield document
        for partition, part in enumerate(found):
            folder = _find_partition(self.folder, partition)
            folder.begin(world_size, {})
            with folder.write(rank) as file:
                file.write(part)


class FindDuplicates(PipelineStep):  # type: ignore[misc]
    """Finds the texts that stood before; task k searches partition k.

    Args:
        signatures: the folder that `SignTexts` wrote.
        folder: gets a folder of each partition, with a file of each task of the documents.

    Example:
        >>> FindDuplicates("signatures", "duplicates").folder
        PosixPath('duplicates')
    """

    type = "duplicates"
    name = "lmcore search"

    def __init__(self, signatures: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self.signatures = Path(signatures)
        self.folder = Path(folder)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Searches a partition.

        Args:
            data: not used.
            rank: the partition.
            world_size: how many there are.

        Raises:
            OSError: a file cannot be read or written, or a task is not done.
            ValueError: there are not as many tasks as partitions, or a file is damaged.
        """
        recipe = TaskFolder(self.signatures, "").read_recipe()
        if recipe.get("partitions") != world_size:
            raise ValueError(
                f"{self.signatures}: it has {recipe.get('partitions')} partitions: this stage must "
                f"have as many tasks, got {world_size}"
            )
        tasks = recipe["tasks"]
        parts = [_read(f, _SIGNATURE) for f in _find_partition(self.signatures, rank).list_files()]
        found = _find_repeated(parts)
        TaskFolder(self.folder, "").begin(tasks, {"partitions": world_size})
        folder = _find_partition(self.folder, rank)
        folder.begin(tasks, {})
        for task, documents in enumerate(found):
            with folder.write(task) as file:
                file.write(documents.astype(_PLACE).tobytes())


class DropDuplicates(PipelineStep):  # type: ignore[misc]
    """Drops the documents of a task that stood before.

    Documents must come as `SignTexts` saw them.

    Args:
        duplicates: the folder that `FindDuplicates` wrote.
        counts: a folder that gets the numbers of each task.

    Example:
        >>> import tempfile
        >>> from datatrove.data import Document
        >>> texts = ["It rains.", "It snows.", "It rains."]
        >>> make = lambda: (Document(text=text, id="") for text in texts)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first, second, third = (Path(folder, name) for name in "abc")
        ...     _ = list(SignTexts(first)(make()))
        ...     FindDuplicates(first, second)()
        ...     [document.text for document in DropDuplicates(second, third)(make())]
        ['It rains.', 'It snows.']
    """

    type = "duplicates"
    name = "lmcore drop"

    def __init__(self, duplicates: str | os.PathLike[str], counts: str | os.PathLike[str]) -> None:
        super().__init__()
        self.duplicates = Path(duplicates)
        self.counts = TaskFolder(counts, COUNTS)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Yields the documents that did not stand before.

        Args:
            data: documents.
            rank: the task.
            world_size: of how many.

        Raises:
            OSError: a file cannot be read or written, or a partition is not searched.
            ValueError: there are other documents, or another number of tasks.
        """
        partitions = TaskFolder(self.duplicates, "").read_recipe().get("partitions")
        if type(partitions) is not int or not 1 <= partitions <= _MOST_PARTITIONS:
            raise ValueError(f"{self.duplicates}: it is no folder of duplicates, or damaged")
        files = [
            _find_partition(self.duplicates, partition).list_files(world_size)[rank]
            for partition in range(partitions)
        ]
        dropped = np.sort(np.concatenate([_read(file, _PLACE) for file in files]))
        self.counts.begin(world_size, {})
        characters, place = 0, 0
        for number, document in enumerate(data or ()):
            if place < len(dropped) and dropped[place] == number:
                place += 1
                characters += len(document.text)
            else:
                yield document
        if place < len(dropped):
            raise ValueError(
                f"{self.duplicates}: task {rank} has other documents than those that were signed"
            )
        found = {"documents": place, "characters": characters}
        self.counts.write_json(rank, {"duplicate_documents": found})


def _find_partition(folder: Path, partition: int) -> TaskFolder:
    return TaskFolder(folder / f"{partition:05d}", SIGNATURES)


def _read(file: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    size = file.stat().st_size
    if size % kind.itemsize:
        raise ValueError(f"{file}: damaged: it has {size} bytes")
    return np.fromfile(file, kind)


def _find_repeated(parts: list[NDArray[Any]]) -> list[NDArray[np.int64]]:
    """Of each part the documents, in order, whose signature stands before, in any part."""
    every = np.concatenate(parts)
    # Equal ones stay in their order.
    order = np.lexsort((every["low"], every["high"]))
    is_repeated = np.zeros(len(every), bool)
    one, two = order[:-1], order[1:]
    same = every["high"][one] == every["high"][two]
    same &= every["low"][one] == every["low"][two]
    is_repeated[two[same]] = True
    ends = np.cumsum([len(part) for part in parts])
    return [
        part["document"][is_repeated[end - len(part) : end]].astype(np.int64)
        for part, end in zip(parts, ends.tolist(), strict=True)
    ]
