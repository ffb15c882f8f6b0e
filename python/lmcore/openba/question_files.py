"""Files of questions with options, in the forms that the suites are published in.

| task | form |
| --- | --- |
| any but bbh | `.json`: a list of `{demo, data}` with `question`, `res1`, `res2` ..., `ans`, perhaps `opt_num` |
| ceval | `.csv`: `id, question, A, B, C, D, answer` |
| cmmlu | `.csv`: a number, `Question, A, B, C, D, Answer` |
| arc | `.jsonl`: `question.stem`, `question.choices` with `text` and `label`, `answerKey` |
| piqa | `.csv`: `goal, sol1, sol2, label`; `.jsonl` with the same, and `NAME-labels.lst` beside it |
| belebele | `.jsonl`: `flores_passage`, `question`, `mc_answer1` ..., `correct_answer_num` |
| bbh | `.json`: `examples` with `input` and `target` |
"""  # noqa: E501

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcore._json import parse_json, refuse_surrogates
from lmcore._rows import RowReader

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""What options are called."""
_BOM = b"\xef\xbb\xbf"


@dataclass(kw_only=True, slots=True, frozen=True)
class Question:
    """A question with options."""

    subject: str
    key: str
    """Its id within the subject: what the file says, or its place there."""
    place: str
    """File and line, for errors."""
    text: str
    options: tuple[str, ...]
    answer: int | None
    """The place of the right option; None where the file keeps it secret."""
    demos: tuple[Question, ...] = ()
    """Questions with answers that may be shown before it."""


class QuestionReader:
    r"""The questions of files; what cannot be used is refused, or counted and listed.

    Args:
        task: one of `SUFFIXES`.
        skip_bad_rows: count and list questions that cannot be used instead of raising.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.csv")
        ...     _ = file.write_text("goal,sol1,sol2,label\nTo swim,water,sand,0\n")
        ...     [question] = QuestionReader("piqa").read(file, "piqa")
        >>> question.options, question.answer
        (('water', 'sand'), 0)
    """

    def __init__(self, task: str, *, skip_bad_rows: bool = False) -> None:
        self._task = task
        self._skips = skip_bad_rows
        self.bad_rows = 0
        self.listed_bad_rows: list[str] = []
        self.left_out: list[str] = []
        """Files that hold no choice among options, and why."""

    def read(self, path: Path, subject: str) -> list[Question]:
        """Returns the questions of a file, in order.

        Args:
            path: the file.
            subject: what its questions are about.

        Raises:
            OSError: it cannot be read.
            ValueError: it holds no questions, or one that cannot be used.
        """
        reader = RowReader(path, skip_bad_rows=self._skips)
        found: list[Question] = []
        keys: dict[str, str] = {}
        for place, row in self._open(path, reader):
            line = int(place)
            try:
                parts = self._parse(path, row, subject)
                key = parts.pop("key", None)
                if key is None:
                    key = str(len(found) + 1)
                elif key in keys:
                    raise ValueError(f"the id {key!r:.60} stands twice, first in line {keys[key]}")
                demos = [
                    Question(subject=subject, key="", place=f"{path}:{place}", **demo)
                    for demo in parts.pop("demos", [])
                ]
                question = Question(
                    subject=subject, key=key, place=f"{path}:{place}", demos=tuple(demos), **parts
                )
            except ValueError as error:
                reader.refuse(line, str(error))
                continue
            keys[key] = place
            found.append(question)
        self.bad_rows += reader.bad_rows
        self.listed_bad_rows += reader.listed_bad_rows
        if not found and not reader.bad_rows and not self._is_left_out(path):
            raise ValueError(f"{path}: it holds no questions")
        return found

    def _is_left_out(self, path: Path) -> bool:
        return any(text.startswith(f"{path}: ") for text in self.left_out)

    def _open(self, path: Path, reader: RowReader) -> Iterator[tuple[str, Any]]:
        """The rows of a file, each with its line."""
        if path.suffix == ".json":
            rows = _JsonRows(path, "examples" if self._task == "bbh" else None)
            values = [*rows]
            if self._task == "bbh":
                values = self._choose_labels(path, values)
            yield from values
        elif path.suffix == ".csv":
            for line, record in reader.records(_COLUMNS[self._task]):
                yield str(line), record
        else:
            labels = _read_labels(path) if self._task == "piqa" else None
            count = 0
            for row in reader:
                value = row.value
                if labels is not None:
                    label = labels[count] if count < len(labels) else None
                    value = {**value, "label": label}
                count += 1
                yield str(row.line), value
            if labels is not None and len(labels) != count + reader.bad_rows:
                file = _find_labels(path)
                raise ValueError(f"{file}: expected {count} labels, got {len(labels)}")

    def _choose_labels(self, path: Path, rows: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Examples of BBH without options of their own may be answered by any target."""
        free = [
            row["target"]
            for _, row in rows
            if isinstance(row, dict)
            and isinstance(row.get("input"), str)
            and isinstance(row.get("target"), str)
            and _split_options(row["input"]) is None
        ]
        labels = sorted({text.strip() for text in free}, key=_by_number)
        if len(labels) > len(LETTERS):
            self.left_out.append(
                f"{path}: {len(labels)} different targets and no options: no choice among them"
            )
            return []
        return [
            (place, {**row, "labels": labels} if isinstance(row, dict) else row)
            for place, row in rows
        ]

    def _parse(self, path: Path, row: Any, subject: str) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise ValueError(f"expected an object, got {row!r:.60}")
        if path.suffix == ".json" and self._task != "bbh":
            return _parse_pair(row)
        return _PARSERS[self._task](row)


class _JsonRows:
    """The elements of a list in a JSON file, with the lines that they begin in.

    Args:
        path: the file.
        key: the list stands under it in an object; None: it is the whole.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        self._name = os.fspath(path)
        try:
            self._text = path.read_bytes().removeprefix(_BOM).decode()
            self._value = parse_json(self._text)
            refuse_surrogates(self._value, self._text)
        except ValueError as error:
            raise ValueError(f"{self._name}: not questions: {error}") from None
        wanted = "a list" if key is None else f"an object with a list {key!r}"
        value = self._value if key is None else None
        if key is not None and isinstance(self._value, dict):
            value = self._value.get(key)
        if not isinstance(value, list):
            raise ValueError(f"{self._name}: not questions: expected {wanted}")
        self._rows = value
        self._start = 0 if key is None else self._find_value(key)

    def _find_value(self, key: str) -> int:
        """Where the value of a key of the object begins; another may hold the same word."""
        decoder = json.JSONDecoder()
        place = self._text.find("{") + 1
        while True:
            name, place = decoder.raw_decode(self._text, _skip_space(self._text, place))
            place = _skip_space(self._text, place)
            if name == key:
                return place
            _, place = decoder.raw_decode(self._text, place)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        decoder = json.JSONDecoder()
        place = self._text.find("[", self._start) + 1
        line, counted = 1, 0
        for row in self._rows:
            place = _skip_space(self._text, place)
            line += self._text.count("\n", counted, place)
            counted = place
            yield str(line), row
            _, place = decoder.raw_decode(self._text, place)


_SPACE = re.compile(r"[\s,:]*")


def _skip_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    assert found is not None
    return found.end()


def _by_number(text: str) -> tuple[int, int, str]:
    """Numbers in their order, then texts."""
    if re.fullmatch("-?[0-9]{1,18}", text):
        return 0, int(text), ""
    return 1, 0, text


def _take_text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        got = "nothing" if key not in row else f"{value!r:.60}"
        raise ValueError(f"expected a text under {key!r}, got {got}")
    return value


def _check_options(options: Sequence[str]) -> tuple[str, ...]:
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"expected from 2 to {len(LETTERS)} options, got {len(options)}")
    for letter, option in zip(LETTERS, options, strict=False):
        if not option.strip():
            raise ValueError(f"option {letter} is empty")
    return tuple(options)


def _find_answer(text: str, names: Sequence[str], key: str) -> int:
    if text not in names:
        raise ValueError(f"expected one of {', '.join(names)} under {key!r}, got {text!r:.60}")
    return names.index(text)


def _parse_pair(row: Mapping[str, Any]) -> dict[str, Any]:
    """A question with its demonstrations."""
    data, demos = row.get("data"), row.get("demo", [])
    if not isinstance(data, dict):
        raise ValueError(f"expected an object under 'data', got {data!r:.60}")
    if not isinstance(demos, list) or not all(isinstance(demo, dict) for demo in demos):
        raise ValueError("expected a list of objects under 'demo'")
    return {**_parse_data(data), "demos": [_parse_data(demo) for demo in demos]}


def _parse_data(data: Mapping[str, Any]) -> dict[str, Any]:
    count = data.get("opt_num")
    present = [key for key in data if re.fullmatch("res[1-9][0-9]?", key)]
    if count is None:
        count = len(present)
    elif type(count) is not int or not 2 <= count <= len(LETTERS):
        raise ValueError(f"expected opt_num from 2 to {len(LETTERS)}, got {count!r:.60}")
    options = _check_options([_take_text(data, f"res{n}") for n in range(1, count + 1)])
    answer = _find_answer(_take_text(data, "ans"), LETTERS[: len(options)], "ans")
    return {"text": _take_text(data, "question"), "options": options, "answer": answer}


def _parse_ceval(row: Mapping[str, Any]) -> dict[str, Any]:
    return _parse_letters(row, "question", "answer", row.get("id"))


def _parse_cmmlu(row: Mapping[str, Any]) -> dict[str, Any]:
    return _parse_letters(row, "Question", "Answer", row.get(""))


def _parse_letters(
    row: Mapping[str, Any], question: str, answer: str, key: str | None
) -> dict[str, Any]:
    options = _check_options([row[letter] for letter in "ABCD"])
    given = row.get(answer, "").strip()
    found = _find_answer(given, "ABCD", answer) if given else None
    return {"text": row[question], "options": options, "answer": found, "key": key}


def _parse_arc(row: Mapping[str, Any]) -> dict[str, Any]:
    question = row.get("question")
    if not isinstance(question, dict):
        raise ValueError(f"expected an object under 'question', got {question!r:.60}")
    choices = question.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError("expected a list of objects under 'choices'")
    labels = [_take_text(choice, "label") for choice in choices]
    if len(set(labels)) < len(labels):
        raise ValueError(f"a label stands twice: {', '.join(labels):.60}")
    options = _check_options([_take_text(choice, "text") for choice in choices])
    answer = _find_answer(_take_text(row, "answerKey"), labels, "answerKey")
    key = row.get("id")
    return {
        "text": _take_text(question, "stem"), "options": options, "answer": answer,
        "key": key if isinstance(key, str) else None,
    }  # fmt: skip


def _parse_piqa(row: Mapping[str, Any]) -> dict[str, Any]:
    options = _check_options([_take_text(row, "sol1"), _take_text(row, "sol2")])
    label = row.get("label")
    # The published test set has no labels, or -1.
    is_secret = label is None or str(label) in ("", "-1")
    answer = None if is_secret else _find_answer(str(label), ["0", "1"], "label")
    return {"text": _take_text(row, "goal"), "options": options, "answer": answer}


def _parse_belebele(row: Mapping[str, Any]) -> dict[str, Any]:
    options = _check_options([_take_text(row, f"mc_answer{n}") for n in range(1, 5)])
    number = row.get("correct_answer_num")
    answer = _find_answer(str(number), ["1", "2", "3", "4"], "correct_answer_num")
    text = f"{_take_text(row, 'flores_passage')} {_take_text(row, 'question')}"
    return {"text": text, "options": options, "answer": answer}


def _parse_bbh(row: Mapping[str, Any]) -> dict[str, Any]:
    text, target = _take_text(row, "input"), _take_text(row, "target").strip()
    split = _split_options(text)
    if split is None:
        names = options = row["labels"]
    else:
        text, names, options = split
    found = _check_options(options)
    return {"text": text, "options": found, "answer": _find_answer(target, names, "target")}


_OPTIONS = re.compile(r"\s*\n?Options:[ \t]*\n")
_LETTERED = re.compile(r"\(([A-Z])\)\s*(.*)")


def _split_options(text: str) -> tuple[str, list[str], list[str]] | None:
    """A question of BBH, the targets that its options have, and the options."""
    found = [*_OPTIONS.finditer(text)]
    if not found:
        return None
    lines = [line.strip() for line in text[found[-1].end() :].split("\n") if line.strip()]
    question = text[: found[-1].start()]
    lettered = [_LETTERED.fullmatch(line) for line in lines]
    if lines and all(lettered):
        pairs = [match.groups() for match in lettered if match is not None]
        return question, [f"({letter})" for letter, _ in pairs], [option for _, option in pairs]
    if lines and all(line.startswith("- ") for line in lines):
        options = [line[2:].strip() for line in lines]
        return question, options, options
    return None


def _find_labels(path: Path) -> Path:
    return path.with_name(f"{path.name.partition('.')[0]}-labels.lst")


def _read_labels(path: Path) -> list[str] | None:
    """PIQA's labels, a line for each question; None where there is no such file."""
    file = _find_labels(path)
    if not file.is_file():
        return None
    return [content.decode(errors="replace") for _, content in RowReader(file).contents()]


_PARSERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "ceval": _parse_ceval,
    "cmmlu": _parse_cmmlu,
    "arc": _parse_arc,
    "piqa": _parse_piqa,
    "belebele": _parse_belebele,
    "bbh": _parse_bbh,
}
_COLUMNS = {
    "ceval": ("question", "A", "B", "C", "D"),
    "cmmlu": ("Question", "A", "B", "C", "D"),
    "piqa": ("goal", "sol1", "sol2"),
}
SUFFIXES: dict[str, tuple[str, ...]] = {
    "mmlu": (".json",),
    "cmmlu": (".csv", ".json"),
    "ceval": (".csv", ".json"),
    "arc": (".jsonl", ".json"),
    "piqa": (".csv", ".jsonl", ".json"),
    "belebele": (".jsonl", ".json"),
    "bbh": (".json",),
}
"""How the names of a task's files end."""
