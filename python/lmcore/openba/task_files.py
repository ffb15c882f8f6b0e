"""What the tasks of a pipeline leave: in each folder a file of each task, whole or not there.

`tasks.json` in a folder says of how many tasks its files are, and what else they depend on, so that
files of other tasks never stand beside them, and a reader knows when all are there.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lmcore._files import find_file
from lmcore._json import read_json
from lmcore._partial import Partial, State

# Endings of what tasks write.
TEXTS, COUNTS, GROUPS, SIGNATURES = ".jsonl", ".json", ".bin", ".sig"
_RECIPE = "tasks.json"


class TaskFolder:
    """A folder with one file of each task, by its number.

    Args:
        path: of the folder; it is made when a task writes.
        ending: of the files' names.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     folder = TaskFolder(path, ".txt")
        ...     for task in range(2):
        ...         folder.begin(2, {"rule": "a"})
        ...         with folder.write(task) as file:
        ...             _ = file.write(b"text")
        ...     [file.name for file in folder.list_files(2)]
        ['00000.txt', '00001.txt']
    """

    def __init__(self, path: str | os.PathLike[str], ending: str) -> None:
        self.path = Path(path)
        self.ending = ending

    def begin(self, tasks: int, recipe: Mapping[str, Any]) -> None:
        """Makes the folder, or checks that it is one of as many tasks and of the same recipe.

        Args:
            tasks: how many there are.
            recipe: all else that the files depend on, as JSON.

        Raises:
            FileExistsError: it is another's.
            OSError: it cannot be made.
            ValueError: its `tasks.json` is broken.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_recipe(self.path / _RECIPE, {"tasks": tasks, **recipe})

    def find(self, task: int) -> Path:
        """Returns where the file of a task lies, or will.

        Args:
            task: its number, from 0.
        """
        return self.path / f"{task:05d}{self.ending}"

    @contextmanager
    def write(self, task: int) -> Iterator[IO[bytes]]:
        """Yields the file of a task, which gets its name at the end.

        What a killed task left is written over.

        Args:
            task: its number.

        Raises:
            FileExistsError: another process writes it.
            OSError: it cannot be written.
        """
        target = self.find(task)
        with Partial(os.fspath(target), find_file(target)) as partial:
            partial.cut(State(recipe=None))
            yield partial.file
            partial.finish(is_gzip=False)

    def write_json(self, task: int, content: Any) -> None:
        """Writes the file of a task as JSON.

        Args:
            task: its number.
            content: what it shall hold.

        Raises:
            FileExistsError: another process writes it.
            OSError: it cannot be written.
        """
        with self.write(task) as file:
            file.write(json.dumps(content, ensure_ascii=False).encode() + b"\n")

    def count_tasks(self) -> int:
        """Returns of how many tasks the folder is.

        Raises:
            FileNotFoundError: it is none of a pipeline, or nothing was written yet.
            ValueError: its `tasks.json` is broken.
        """
        return int(self.read_recipe()["tasks"])

    def read_recipe(self) -> dict[str, Any]:
        """Returns what the files depend on, and `tasks`, of how many tasks they are.

        Raises:
            FileNotFoundError: it is none of a pipeline, or nothing was written yet.
            ValueError: its `tasks.json` is broken.
        """
        file = self.path / _RECIPE
        if not file.is_file():
            reason = "no task wrote into it yet: run the step before" if self.path.is_dir() else ""
            raise FileNotFoundError(
                errno.ENOENT, reason or os.strerror(errno.ENOENT), os.fspath(self.path)
            )
        return _read(file)

    def list_files(self, tasks: int | None = None) -> list[Path]:
        """Returns the files of all tasks, in their order.

        Args:
            tasks: how many there must be; as many as there are if None.

        Raises:
            FileNotFoundError: one is missing.
            ValueError: there are more or fewer tasks.
        """
        count = self.count_tasks()
        if tasks is not None and tasks != count:
            raise ValueError(
                f"{self.path}: its files are of {count} tasks: this step must have as many, got "
                f"{tasks}"
            )
        files = [self.find(task) for task in range(count)]
        for task, file in enumerate(files):
            if not file.is_file():
                raise FileNotFoundError(
                    errno.ENOENT,
                    f"task {task} of {count} is not done: run the step that writes it",
                    os.fspath(file),
                )
        return files


def write_recipe(file: Path, recipe: Mapping[str, Any]) -> None:
    """Writes a recipe, or checks that the one that is there is the same.

    Of several processes that do so at once one writes.

    Args:
        file: where it stands.
        recipe: as JSON; `tasks` is a number of it.

    Raises:
        FileExistsError: there is another one; the text says what differs.
        OSError: it cannot be written.
        ValueError: the one that is there is broken.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_recipe(Path(folder, "tasks.json"), {"tasks": 4})
        ...     try:
        ...         write_recipe(Path(folder, "tasks.json"), {"tasks": 3})
        ...     except FileExistsError as error:
        ...         print(str(error).removeprefix(folder))
        : was begun with tasks 4, and 3 was given now: give the same, or name another folder
    """
    content: dict[str, Any] = json.loads(json.dumps(recipe))
    if not file.exists():
        place = file.with_name(f".lmcore-{secrets.token_hex(8)}")
        try:
            place.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
            _give_name(place, file)
        finally:
            place.unlink(missing_ok=True)
    found = _read(file)
    for key in dict.fromkeys([*found, *content]):
        if found.get(key) != content.get(key):
            raise FileExistsError(
                f"{file.parent}: was begun with {key} {_show(found.get(key))}, and "
                f"{_show(content.get(key))} was given now: give the same, or name another folder"
            )


def _give_name(place: Path, file: Path) -> None:
    """A file of this name that is there already stays."""
    try:
        os.link(place, file)
    except FileExistsError:
        pass  # another task was faster
    except OSError:  # a file system without links
        place.replace(file)


def _read(file: Path) -> dict[str, Any]:
    content = read_json(file, "a recipe of tasks")
    if not isinstance(content, dict) or type(content.get("tasks")) is not int:
        raise ValueError(f"{file}: not a recipe of tasks: it must hold their number")
    if not 1 <= content["tasks"] < 100_000:
        raise ValueError(f"{file}: not a recipe of tasks: got {content['tasks']} of them")
    return content


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
