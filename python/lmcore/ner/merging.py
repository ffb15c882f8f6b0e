"""Rows to sentences, sentences to windows that a model can read, and their labels back in one.

A sentence comes as one row, or as several that `lmcore ner data` cut it into (`window` says
which words a row holds). A window that is still too long for the model is cut here. Where two
windows overlap, the words before the middle of the overlap take their labels from the first one,
the others from the next: so each label comes from the window that shows more of what stands
around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lmcore.ner.instructions import write_instruction
from lmcore.ner.labels import check_types
from lmcore.ops.words import locate_words, split_words

#: What a prediction adds to a row; an earlier one's is not kept.
PREDICTED = (
    "prediction", "predicted_labels", "entities", "truncated", "windows", "window_predictions",
)  # fmt: skip


@dataclass(kw_only=True, slots=True, frozen=True)
class Part:
    """A row's words, as a part of a sentence."""

    start: int
    """Of its first word in the sentence."""
    words: list[str]
    instruction: str | None
    """As the row says it; its words can be exchanged for fewer."""

    def instruct(self, types: Sequence[str], start: int = 0, stop: int | None = None) -> str:
        """Returns the instruction for some of the words.

        Args:
            types: what entities may be.
            start: first of them, counted from that of the part.
            stop: the one behind the last; None: all.
        """
        words = self.words[start:stop]
        if self.instruction is None:
            return write_instruction(words, types)
        if len(words) == len(self.words):
            return self.instruction
        head, found, tail = self.instruction.rpartition(" ".join(self.words))
        if not found:
            return write_instruction(words, types)
        return head + " ".join(words) + tail


@dataclass(kw_only=True, slots=True, frozen=True)
class SourceSentence:
    """A sentence to label."""

    row: dict[str, Any]
    """What its predictions are added to."""
    words: list[str]
    types: list[str]
    parts: list[Part]
    text: str
    """What offsets count in: the text that the row gives, or the words joined with spaces."""
    offsets: list[tuple[int, int]]
    """Where each word stands there."""
    split: bool
    """Whether the words were cut from the text by `split_words`."""


def group_rows(rows: Iterable[tuple[Any, Mapping[str, Any]]]) -> Iterator[list[tuple[Any, Any]]]:
    """Yields the rows of each sentence: neighbours that are windows of the same one.

    Args:
        rows: pairs of anything and a row.

    Example:
        >>> row = {"window": {"start": 0, "stop": 2, "of": 3, "sentence": 7}}
        >>> [len(group) for group in group_rows([(1, row), (2, row), (3, {})])]
        [2, 1]
    """
    group: list[tuple[Any, Any]] = []
    before: Any = None
    for item in rows:
        key = _sentence_of(item[1])
        if group and (key is None or key != before):
            yield group
            group = []
        group.append(item)
        before = key
    if group:
        yield group


def read_sentence(
    rows: Sequence[Mapping[str, Any]], types: Sequence[str] | None = None
) -> SourceSentence:
    """Returns the sentence of a row, or of the rows of its windows.

    Args:
        rows: with `words` or `text`, `types` or `label_list`, and `instruction` where that is
            another one than the released checkpoints'; also as the authors' code writes them, in
            `instance`.
        types: for rows that name none.

    Raises:
        TypeError: a value has another type.
        ValueError: a key is missing, or windows do not make up their sentence.

    Example:
        >>> sentence = read_sentence([{"text": "Ada ran.", "types": ["person"]}])
        >>> sentence.words, sentence.offsets
        (['Ada', 'ran', '.'], [(0, 3), (4, 7), (7, 8)])
    """
    first = rows[0]
    chosen = _find_types(first, types)
    row = {key: value for key, value in first.items() if key not in PREDICTED}
    if "prediction" not in first and "entities" in first:
        row["gold_entities"] = first["entities"]
    if "types" not in first and "label_list" not in first:
        row["types"] = chosen
    if len(rows) == 1 and "window" not in first:
        text = _get(first, "text")
        if text is not None and not isinstance(text, str):
            raise TypeError(f"text must be a string: got {text!r:.60}")
        words, split = _read_words(first, text)
        if split:
            row["words"] = words
        part = Part(start=0, words=words, instruction=_find_instruction(first))
        return _make(row, words, chosen, [part], text, split=split)
    parts = _read_windows(rows)
    words = _join_words(parts)
    for key in ("window", "instruction", "target", "text"):
        row.pop(key, None)
    row["words"] = words
    labels = [own for own in (row.get("labels") for row in rows) if isinstance(own, list)]
    if len(labels) == len(parts):
        starts = [part.start for part in parts]
        row["labels"] = join_labels(list(zip(starts, labels, strict=True)))
    texts = {row.get("text") for row in rows if isinstance(row.get("text"), str)}
    text = texts.pop() if len(texts) == 1 else None
    if text is not None and _holds(text, words):
        row["text"] = text
    return _make(row, words, chosen, parts, row.get("text"), split=False)


def cut_part(part: Part, fits: Callable[[int, int], bool], overlap: int) -> list[tuple[int, int]]:
    """Returns windows of a part that fit, each as long as may be; they hold a word at least.

    Args:
        part: of a sentence.
        fits: whether the words from one place up to another do.
        overlap: words that two windows share, and at most half of the first.

    Example:
        >>> part = Part(start=0, words=list("abcdefg"), instruction=None)
        >>> cut_part(part, lambda start, stop: stop - start <= 4, 2)
        [(0, 4), (2, 6), (4, 7)]
    """
    count = len(part.words)
    windows: list[tuple[int, int]] = []
    start = 0
    while True:
        low, high = start + 1, count
        if fits(start, count):
            low = count
        while low < high:
            middle = (low + high + 1) // 2
            if fits(start, middle):
                low = middle
            else:
                high = middle - 1
        windows.append((start, low))
        if low == count:
            return windows
        start = max(start + 1, low - min(overlap, (low - start) // 2))


def find_seams(windows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns for each window the words whose labels are its own.

    Args:
        windows: half-open ranges of words, in order; together they hold each word.

    Example:
        >>> find_seams([(0, 4), (2, 6), (6, 7)])
        [(0, 3), (3, 6), (6, 7)]
    """
    seams = [(before[1] + after[0]) // 2 for before, after in pairwise(windows)]
    begins = [windows[0][0], *seams]
    return list(zip(begins, [*seams, windows[-1][1]], strict=True))


def join_labels(windows: Sequence[tuple[int, Sequence[str]]]) -> list[str]:
    """Returns the labels of a sentence from those of its windows.

    An `I-` that lost its entity at a seam becomes `B-`.

    Args:
        windows: the first word of each, and its labels.

    Example:
        >>> join_labels([(0, ["O", "B-x", "O", "O"]), (2, ["O", "I-y", "O"])])
        ['O', 'B-x', 'O', 'B-y', 'O']
    """
    ranges = [(start, start + len(labels)) for start, labels in windows]
    joined: list[str] = []
    for (start, labels), (begin, end) in zip(windows, find_seams(ranges), strict=True):
        own = list(labels[begin - start : end - start])
        if joined and own and own[0][:2] == "I-" and joined[-1][2:] != own[0][2:]:
            own[0] = f"B-{own[0][2:]}"
        joined += own
    return joined


def _make(
    row: dict[str, Any],
    words: list[str],
    types: list[str],
    parts: list[Part],
    text: str | None,
    *,
    split: bool,
) -> SourceSentence:
    known = " ".join(words) if text is None else text
    return SourceSentence(
        row=row, words=words, types=types, parts=parts, text=known,
        offsets=locate_words(known, words), split=split,
    )  # fmt: skip


def _sentence_of(row: Mapping[str, Any]) -> Any:
    window = row.get("window")
    if not isinstance(window, Mapping) or "sentence" not in window:
        return None
    return row.get("dataset"), window["sentence"], window.get("of")


def _get(row: Mapping[str, Any], *keys: str) -> Any:
    """The first of these that a row has, in its instance or at its top."""
    instance = row.get("instance")
    inner = instance if isinstance(instance, Mapping) else {}
    for key in keys:
        for part in (inner, row):
            if part.get(key) is not None:
                return part[key]
    return None


def _find_types(row: Mapping[str, Any], types: Sequence[str] | None) -> list[str]:
    found = _get(row, "types", "label_list")
    if found is None:
        found = types
    if found is None:
        raise ValueError("types is missing (or label_list), and none are given for such rows")
    chosen = _list("types", found)
    check_types(chosen)
    return chosen


def _find_instruction(row: Mapping[str, Any]) -> str | None:
    found = _get(row, "instruction", "instruction_inputs")
    if found is not None and not isinstance(found, str):
        raise TypeError(f"instruction must be a string: got {found!r:.60}")
    return found


def _read_words(row: Mapping[str, Any], text: str | None) -> tuple[list[str], bool]:
    words = _get(row, "words")
    if words is not None:
        found = _list("words", words)
        if text is not None and not _holds(text, found):
            raise ValueError(f"words do not stand in the text in their order: {text!r:.60}")
        split = False
    elif text is not None:
        found, split = [text[start:stop] for start, stop in split_words(text)], True
    else:
        raise ValueError("words is missing, and so is text")
    if not found:
        raise ValueError("the sentence has no words")
    return found, split


def _holds(text: str, words: Sequence[str]) -> bool:
    try:
        locate_words(text, words)
    except ValueError:
        return False
    return True


def _read_windows(rows: Sequence[Mapping[str, Any]]) -> list[Part]:
    parts: list[Part] = []
    stop = of = 0
    for row in rows:
        start, end, of = _read_window(row["window"])
        words = _list("words", _get(row, "words") or [])
        if end - start != len(words) or not words:
            raise ValueError(f"window: words {start} to {end} are not the {len(words)} of the row")
        if start > stop or end <= stop:
            raise ValueError(f"window: expected words from {stop} on: got {start} to {end} of {of}")
        stop = end
        parts.append(Part(start=start, words=words, instruction=_find_instruction(row)))
    if stop != of:
        raise ValueError(f"window: the words from {stop} to {of} of the sentence are missing")
    return parts


def _read_window(window: Any) -> tuple[int, int, int]:
    inner = window if isinstance(window, Mapping) else {}
    start, stop, of = (inner.get(key) for key in ("start", "stop", "of"))
    if type(start) is not int or type(stop) is not int or type(of) is not int:
        raise ValueError("window must hold start, stop and of, whole numbers")
    return start, stop, of


def _join_words(parts: Sequence[Part]) -> list[str]:
    joined: list[str] = []
    for part in parts:
        shared = len(joined) - part.start
        if joined[part.start :] != part.words[:shared]:
            raise ValueError(f"window: its words from {part.start} on are not those before it")
        joined += part.words[shared:]
    return joined


def _list(name: str, value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list of strings: got {value!r:.60}")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise TypeError(f"{name}[{index}] must be a string: got {item!r:.60}")
    return list(value)
