"""The questions of a suite: which files count, what they are about, what is shown before them."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lmcore.openba.question_files import LETTERS, SUFFIXES, Question, QuestionReader

TASKS = tuple(SUFFIXES)
"""The suites whose files are known."""
SPLITS = ("dev", "train", "val", "test")
"""Parts of a suite, in the order in which demonstrations are looked for."""
_NAMES = {
    "dev": "dev", "train": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "tests": "test",
}  # fmt: skip
# What counts where nobody says it: the part whose answers are published.
_COUNTED = {"ceval": "val", "piqa": "val"}
_ENDING = re.compile(r"(?:^|[_-])([A-Za-z]+)$")


@dataclass(kw_only=True, slots=True, frozen=True)
class QuestionSet:
    """The questions of a suite."""

    task: str
    split: str | None
    """The part that counts; None where the files name none."""
    shots: int
    """Demonstrations that each question has."""
    questions: tuple[Question, ...]
    held_out: int
    """Questions that are shown to the others of their file, and do not count."""
    files: tuple[str, ...]
    bad_rows: int
    listed_bad_rows: tuple[str, ...]
    left_out: tuple[str, ...]
    """Files that hold no choice among options, and why."""

    @property
    def digest(self) -> str:
        """What tells these questions from others."""
        digest = hashlib.blake2b(digest_size=16)
        for question in self.questions:
            parts = (question.subject, question.key, question.text, question.options)
            shown = [(demo.text, demo.options, demo.answer) for demo in question.demos]
            digest.update(repr((*parts, question.answer, shown)).encode("utf-8", "replace"))
        return digest.hexdigest()


def read_questions(
    data: str | os.PathLike[str],
    task: str,
    *,
    shots: int = 0,
    split: str | None = None,
    skip_bad_rows: bool = False,
) -> QuestionSet:
    r"""Returns the questions of a folder, or of a file, in the order of the files' names.

    Whether a file is of the part that counts (`val`, `test`) says its folder or the end of its
    name. Demonstrations are those that a question brings along, or the first ones of its subject
    in another part: dev, then train, then val. Where there is none, the first ones of the file
    are shown to its others, and do not count.

    Args:
        data: the folder, with folders in it, or a file; the forms are those of
            `lmcore.openba.question_files`.
        task: one of `TASKS`.
        shots: demonstrations of each question.
        split: the part that counts, one of `SPLITS`; by default val of C-Eval and PIQA, and else
            test.
        skip_bad_rows: count and list questions that cannot be used instead of raising.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is no such task or part, no files or no questions in them, a question
            that cannot be used, or too few demonstrations; the text names file and line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("dev", "val"):
        ...         file = Path(folder, f"logic_{name}.csv")
        ...         _ = file.write_text("id,question,A,B,C,D,answer\n0,not a or,a,b,c,d,A\n")
        ...     found = read_questions(folder, "ceval", shots=1)
        >>> [question] = found.questions
        >>> found.split, question.subject, question.demos[0].answer
        ('val', 'logic', 0)
    """
    _check_choice("task", task, TASKS)
    if split is not None:
        _check_choice("split", split, SPLITS)
    if shots < 0:
        raise ValueError(f"shots must be at least 0: got {shots}")
    files = _find_files(Path(data), task)
    counted, wanted = _choose_files(data, files, split, _COUNTED.get(task, "test"))
    reader = QuestionReader(task, skip_bad_rows=skip_bad_rows)
    questions: list[Question] = []
    held_out = 0
    for file in counted:
        found = reader.read(file.path, file.subject)
        is_pairs = file.path.suffix == ".json" and task != "bbh"
        if is_pairs:
            found = [_keep_demos(question, shots) for question in found]
        elif shots and found:
            others = (f for f in files if f.subject == file.subject and f.split != file.split)
            demos, rest = _find_demos(reader, others, found, shots)
            held_out += len(found) - len(rest)
            found = [replace(question, demos=demos) for question in rest]
        questions += found
    if not questions:
        raise ValueError(f"{os.fspath(data)}: there are no questions that can be used")
    return QuestionSet(
        task=task, split=wanted, shots=shots, questions=tuple(questions), held_out=held_out,
        files=tuple(str(file.path) for file in counted), bad_rows=reader.bad_rows,
        listed_bad_rows=tuple(reader.listed_bad_rows), left_out=tuple(reader.left_out),
    )  # fmt: skip


@dataclass(slots=True, frozen=True)
class _File:
    path: Path
    subject: str
    split: str | None


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}: got {value!r:.60}")


def _find_files(data: Path, task: str) -> list[_File]:
    """A task's files, in the order of their names."""
    if data.is_file():
        if data.suffix not in SUFFIXES[task]:
            endings = ", ".join(SUFFIXES[task])
            raise ValueError(f"{data}: expected a file of {task} ({endings})")
        return [_describe(data, Path(data.name), task)]
    if not data.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(data))
    paths = [
        path
        for path in sorted(data.rglob("*"))
        if path.suffix in SUFFIXES[task]
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(data).parts)
    ]
    if not paths:
        endings = " or ".join(f"*{ending}" for ending in SUFFIXES[task])
        raise ValueError(f"{data}: no questions of {task} ({endings}) in it")
    return [_describe(path, path.relative_to(data), task) for path in paths]


def _describe(path: Path, name: Path, task: str) -> _File:
    """What a file's name says: `logic_val.csv`, `val/logic.csv`, `ARC-Easy-Test.jsonl`."""
    stem = name.name[: -len(path.suffix)]
    found = _ENDING.search(stem)
    split = None if found is None else _NAMES.get(found[1].lower())
    if split is not None and found is not None:
        stem = stem[: found.start()]
    else:
        folders = [_NAMES.get(part.lower()) for part in name.parts[:-1]]
        split = next((part for part in reversed(folders) if part is not None), None)
    return _File(path, stem or task, split)


def _choose_files(
    data: str | os.PathLike[str], files: list[_File], split: str | None, default: str
) -> tuple[list[_File], str | None]:
    """The files that count, and which part they are."""
    wanted = default if split is None else split
    chosen = [file for file in files if file.split == wanted]
    if chosen:
        return chosen, wanted
    known = sorted({file.split for file in files if file.split is not None})
    if split is None and not known:
        return files, None
    found = f"found {', '.join(known)}" if known else "the names of the files say none"
    raise ValueError(f"{os.fspath(data)}: no files of the split {wanted!r}: {found}")


def _keep_demos(question: Question, shots: int) -> Question:
    if len(question.demos) < shots:
        raise ValueError(
            f"{question.place}: expected {shots} demonstrations under 'demo', got "
            f"{len(question.demos)}"
        )
    return replace(question, demos=question.demos[:shots])


def _find_demos(
    reader: QuestionReader, others: Iterable[_File], found: list[Question], shots: int
) -> tuple[tuple[Question, ...], list[Question]]:
    """Demonstrations of a subject, and its questions without those that are shown themselves."""
    order = {name: place for place, name in enumerate((*SPLITS[:3], None, "test"))}
    for file in sorted(others, key=lambda file: order[file.split]):
        shown = [q for q in reader.read(file.path, file.subject) if q.answer is not None]
        if len(shown) < shots:
            raise ValueError(
                f"{file.path}: expected {shots} questions with answers to show, got {len(shown)}"
            )
        return tuple(shown[:shots]), found
    shown, rest = found[:shots], found[shots:]
    if len(shown) < shots or not rest or any(question.answer is None for question in shown):
        name = found[0].place.rpartition(":")[0]
        raise ValueError(
            f"{name}: expected {shots} questions with answers to show and others to ask, got "
            f"{len(found)}"
        )
    return tuple(shown), rest


__all__ = ["LETTERS", "SPLITS", "TASKS", "Question", "QuestionSet", "read_questions"]
