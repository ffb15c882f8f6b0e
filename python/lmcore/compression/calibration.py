"""Calibration text: what a model reads while its parts are scored.

| model | a row with `src` and `trg` | a text |
| --- | --- | --- |
| OpenBA | source and target | its own denoising (UL2), of a fixed seed |
| another encoder-decoder | source and target | its first half is the source, the rest the target |
| decoder | `trg` is predicted behind `src` | each token is predicted from those before it |
| BERT | refused | each seventh token is masked where a loss is asked for |

Long texts are divided into parts of about one length; nothing of them is left out. Rows with `src`
and `trg` are never divided.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from lmcore._rows import parse_row
from lmcore.openba.documents import RawDocument, read_documents

LENGTH = 256
"""Tokens of the parts of a text, where the model can read as many."""
MASKED_EACH = 7
_IGNORED = -100
_SEED = 0


class CalibrationRow(NamedTuple):
    """What a model reads, and what it should say; a decoder reads both one after the other."""

    source: tuple[int, ...]
    target: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.source) + len(self.target)


@dataclass(kw_only=True, slots=True, frozen=True)
class Reader:
    """How texts become rows for a model.

    Example:
        >>> from types import SimpleNamespace
        >>> encode = lambda text, **_: {"input_ids": [ord(letter) for letter in text]}
        >>> tokenizer = SimpleNamespace(eos_token_id=1)
        >>> reader = Reader(kind="encoder-decoder", tokenizer=tokenizer, encode=encode, length=4)
        >>> [*reader.make_rows({"text": "abcdef"})]
        [CalibrationRow(source=(97, 1), target=(98, 99)), CalibrationRow(source=(100, 1), \
target=(101, 102, 1))]
    """

    kind: str
    """`encoder-decoder`, `decoder` or `encoder`."""
    tokenizer: Any
    encode: Callable[..., Any]
    """The tokenizer's call."""
    length: int = LENGTH
    most_tokens: int | None = None
    """That a model can read at once, where there is a limit."""
    vocabulary_size: int | None = None
    denoisers: Any = None
    """Those of OpenBA, with its special ids."""

    def make_rows(self, row: dict[str, Any], number: int = 0) -> Iterator[CalibrationRow]:
        """Yields what a row of a file becomes.

        Args:
            row: with `text`, or `src` and `trg`.
            number: of its first part, which noise depends on.

        Raises:
            ValueError: it has no such texts, or is too long.
        """
        made = self._make_pair(row) if "src" in row or "trg" in row else self._divide(row, number)
        for found in made:
            longest = max(len(found.source), len(found.target))
            if self.kind == "decoder":
                longest = found.tokens
            if self.most_tokens is not None and longest > self.most_tokens:
                raise ValueError(f"expected at most {self.most_tokens} tokens, got {longest}")
            largest = max((*found.source, *found.target), default=0)
            if self.vocabulary_size is not None and largest >= self.vocabulary_size:
                raise ValueError(f"the tokenizer is not the model's: it gives the id {largest}")
            yield found

    def _make_pair(self, row: dict[str, Any]) -> Iterator[CalibrationRow]:
        texts = [_take_text(row, name) for name in ("src", "trg")]
        if self.kind == "encoder":
            raise ValueError("expected a text under 'text': an encoder alone has no targets")
        if self.kind == "decoder":
            source = tuple(self.encode(texts[0], verbose=False)["input_ids"])
            yield CalibrationRow(source, self._end(self._encode(texts[1])))
        else:
            source, target = (tuple(self.encode(text, verbose=False)["input_ids"])
                              for text in texts)  # fmt: skip
            yield CalibrationRow(source, target)

    def _divide(self, row: dict[str, Any], number: int) -> Iterator[CalibrationRow]:
        text = _take_text(row, "text")
        if self.kind == "decoder":
            ids = tuple(self.encode(text, verbose=False)["input_ids"])
            yield from (CalibrationRow((), part) for part in _split(ids, self.length))
            return
        if self.kind == "encoder":
            ends = [[n] if (n := getattr(self.tokenizer, name, None)) is not None else []
                    for name in ("cls_token_id", "sep_token_id")]  # fmt: skip
            size = max(1, self.length - sum(map(len, ends)))
            for part in _split(self._encode(text), size):
                yield CalibrationRow((*ends[0], *part, *ends[1]))
            return
        parts = _split(self._encode(text), self.length)
        for place, part in enumerate(parts):
            if self.denoisers is not None and len(part) > 1:
                yield self._denoise(part, number + place)
                continue
            half = len(part) // 2
            target = part[half:] if place < len(parts) - 1 else self._end(part[half:])
            yield CalibrationRow(self._end(part[:half]), target)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.encode(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _end(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        end = self.tokenizer.eos_token_id
        if end is None and not ids:
            raise ValueError("expected more than one token: the tokenizer has no end of a text")
        return ids if end is None else (*ids, end)

    def _denoise(self, ids: tuple[int, ...], number: int) -> CalibrationRow:
        from lmcore.ops.denoising import denoise_batch

        denoisers, special = self.denoisers
        batch = denoise_batch([[*ids]], [number], seed=_SEED, denoisers=denoisers, ids=special)
        return CalibrationRow(tuple(batch.encoder[0].tolist()), tuple(batch.labels[0].tolist()))


def read_calibration(
    path: str | os.PathLike[str], reader: Reader, most_tokens: int
) -> list[CalibrationRow]:
    r"""Returns the first rows of a file, up to a number of tokens.

    Args:
        path: JSONL with `text`, or with `src` and `trg`; or lines of text.
        reader: makes rows of them.
        most_tokens: of all rows together; what exceeds it is not read, but for one row.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no texts, or a row that cannot be used; the text names its line.

    Example:
        >>> import tempfile
        >>> from types import SimpleNamespace
        >>> encode = lambda text, **_: {"input_ids": [ord(letter) for letter in text]}
        >>> reader = Reader(kind="decoder", tokenizer=None, encode=encode)
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("ab\ncd\nef\n"), file.flush()
        ...     [row.target for row in read_calibration(file.name, reader, 5)]
        [(97, 98), (99, 100)]
    """
    rows: list[CalibrationRow] = []
    tokens = 0
    for document in read_documents([check_text(path)]):
        try:
            for row in reader.make_rows(_read_row(document), len(rows)):
                tokens += row.tokens
                if rows and tokens > most_tokens:
                    return rows
                rows.append(row)
        except ValueError as error:
            raise ValueError(f"{document.name}:{document.line}: {error}") from None
    if not rows:
        raise ValueError(f"{os.fspath(path)}: the file holds no texts")
    return rows


def check_text(path: str | os.PathLike[str]) -> str:
    """Returns the name of a calibration text that can be read twice.

    Args:
        path: the file.

    Raises:
        OSError: it is not there.
        ValueError: it is no regular file.

    Example:
        >>> check_text("/dev/null")
        Traceback (most recent call last):
        ValueError: /dev/null: expected a file of text
    """
    name = os.fspath(path)
    Path(name).stat()
    if not Path(name).is_file():
        raise ValueError(f"{name}: expected a file of text")
    return name


def digest_text(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a calibration text.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file.

    Example:
        >>> len(digest_text("pyproject.toml"))
        64
    """
    with open(check_text(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(kw_only=True, slots=True, frozen=True)
class CalibrationBatch:
    """Rows with padding on the right, as a model takes them."""

    inputs: dict[str, Any]
    """Of the model: tensors `[B, S]` and `[B, T]` int64."""
    shown: dict[str, Any]
    """For `encoder` and `decoder` which places are no padding: bool."""
    labels: Any
    """`[B, T]` int64; -100 where there is none."""
    tokens: int


def make_batch(
    rows: Sequence[CalibrationRow],
    kind: str,
    *,
    pad: int = 0,
    start: int = 0,
    mask: int | None = None,
    number: int = 0,
) -> CalibrationBatch:
    """Returns rows as tensors.

    Args:
        rows: at least one.
        kind: of the model, as for `Reader`.
        pad: the id that fills up; which one makes no difference.
        start: what a decoder behind an encoder begins with.
        mask: the id that hides tokens from an encoder; it has no labels if None.
        number: of the first row, from which the masked places follow.

    Example:
        >>> rows = [CalibrationRow((5, 6), (7, 1)), CalibrationRow((5,), (1,))]
        >>> batch = make_batch(rows, "encoder-decoder")
        >>> batch.inputs["decoder_input_ids"].tolist(), batch.labels.tolist()
        ([[0, 7], [0, 0]], [[7, 1], [1, -100]])
        >>> make_batch(rows, "decoder").labels.tolist()
        [[-100, 7, 1, -100], [1, -100, -100, -100]]
    """
    tokens = sum(row.tokens for row in rows)
    if kind == "encoder-decoder":
        source, shown = _fill([row.source for row in rows], pad)
        target, _ = _fill([(start, *row.target[:-1]) for row in rows], pad)
        labels, labelled = _fill([row.target for row in rows], _IGNORED)
        inputs = {"input_ids": source, "attention_mask": shown.long(), "decoder_input_ids": target}
        masks = {"encoder": shown, "decoder": labelled}
        return CalibrationBatch(inputs=inputs, shown=masks, labels=labels, tokens=tokens)
    wholes = [(*row.source, *row.target) for row in rows]
    if kind == "decoder":
        ids, shown = _fill(wholes, pad)
        told = [(*((_IGNORED,) * len(row.source) + row.target)[1:], _IGNORED) for row in rows]
        labels, _ = _fill(told, _IGNORED)
    else:
        both = [
            [
                (n, mask is not None and _is_masked(place, number + row))
                for place, n in enumerate(ids)
            ]
            for row, ids in enumerate(wholes)
        ]
        ids, shown = _fill([[mask or 0 if gone else n for n, gone in row] for row in both], pad)
        labels, _ = _fill([[n if gone else _IGNORED for n, gone in row] for row in both], _IGNORED)
    inputs = {"input_ids": ids, "attention_mask": shown.long()}
    return CalibrationBatch(inputs=inputs, shown={kind: shown}, labels=labels, tokens=tokens)


def _is_masked(place: int, row: int) -> bool:
    return (place + row) % MASKED_EACH == MASKED_EACH // 2


def _fill(rows: Sequence[Sequence[int]], value: int) -> tuple[Any, Any]:
    import torch

    width = max(1, *map(len, rows)) if len(rows) > 1 else max(1, len(rows[0]))
    filled = torch.full((len(rows), width), value, dtype=torch.int64)
    shown = torch.zeros_like(filled, dtype=torch.bool)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
        shown[place, : len(row)] = True
    return filled, shown


def _split(ids: tuple[int, ...], length: int) -> list[tuple[int, ...]]:
    """Parts of about one length, none longer than that asked for."""
    count = -(-len(ids) // length)
    ends = [len(ids) * number // count for number in range(count + 1)] if count else []
    return [ids[a:b] for a, b in pairwise(ends)]


def _read_row(document: RawDocument) -> dict[str, Any]:
    return parse_row(document.content) if document.form == "jsonl" else {"text": document.parse()}


def _take_text(row: dict[str, Any], name: str) -> str:
    text = row.get(name)
    if not isinstance(text, str):
        raise ValueError(f"expected a text under {name!r}, got {text!r:.60}")
    return text
