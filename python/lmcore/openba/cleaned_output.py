"""One output of clean texts, the hashes beside it, and what was counted.

See `lmcore.openba.cleaned_files`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from lmcore._files import find_file, naming_errors
from lmcore._finished import FinishedOutput
from lmcore._json import refuse_surrogates
from lmcore._partial import Partial, State
from lmcore._rows import parse_row
from lmcore._streams import READ_BYTES, is_gzip, is_standard
from lmcore._text import to_json
from lmcore.openba.cleaning import RULES, CleanConfig, clean_texts, remove_duplicates
from lmcore.openba.documents import RawDocument, read_documents
from lmcore.ops.duplicates import Duplicates

# Texts that are cleaned at once: enough for each thread, and few enough that memory is no matter.
_BYTES_AT_ONCE = 1 << 20
_DOCUMENTS_AT_ONCE = 1 << 14
LISTED_ROWS = 1000
# Brackets of a row that may be nested so deeply that it cannot be written.
_DEEP = 100
_SAVE_SECONDS = 1.0


class Run(Protocol):
    """What the outputs of a run share."""

    config: CleanConfig
    recipe: dict[str, Any]
    threads: int | None
    skips: bool
    seen: Duplicates
    resumed: int

    def add(self, counts: Counts, bad_rows: int, listed: list[str]) -> None:
        """Counts what one file had."""


@dataclass(slots=True)
class Counts:
    """What was counted in one file, or in all."""

    documents: int = 0
    kept_documents: int = 0
    characters: int = 0
    kept_characters: int = 0
    rules: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Adds those of another file."""
        self.documents += other.documents
        self.kept_documents += other.kept_documents
        self.characters += other.characters
        self.kept_characters += other.kept_characters
        for name, (documents, characters) in other.rules.items():
            self.count(name, documents, characters)

    def count(self, rule: str, documents: int, characters: int) -> None:
        """Adds what a rule did."""
        known = self.rules.get(rule, (0, 0))
        self.rules[rule] = (known[0] + documents, known[1] + characters)

    @classmethod
    def parse(cls, content: Any) -> Counts | None:
        """Those that `asdict` made a dict of; None if it is another."""
        names = [each.name for each in fields(cls)]
        if not isinstance(content, dict) or list(content) != names:
            return None
        rules = content["rules"]
        pairs: list[Any] = list(rules.values()) if isinstance(rules, dict) else [None]
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            return None
        numbers = [*(content[name] for name in names[:-1]), *(n for pair in pairs for n in pair)]
        known = {*RULES, "empty", "unsettled"}
        if not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers) or set(rules) - known:
            return None
        return cls(**{**content, "rules": {name: tuple(pair) for name, pair in rules.items()}})


class Output:
    """One output, and the hashes beside it."""

    def __init__(self, target: Path, source: str | os.PathLike[str], form: str, run: Run) -> None:
        self._name = os.fspath(target)
        self._source, self._form, self._run = source, form, run
        self._partial = Partial(self._name, find_file(target))
        rows = self._partial.rows
        self._hashes = rows.with_name(rows.name.removesuffix("rows") + "hashes")
        self._finished = FinishedOutput(target, run.recipe)

    def forget(self, *, is_new: bool = False) -> None:
        """Removes what lies beside the output, and of one that is not whole what tells it."""
        if is_new:
            self._partial.state.unlink(missing_ok=True)
        self._finished.remove()
        self._hashes.unlink(missing_ok=True)

    def clean(self, progress: Callable[[int], object] | None) -> int:
        """Writes the output, if it is not there already; returns how many bytes were read."""
        run = self._run
        result = self._finished.load()
        if result is not None and self._hashes.is_file():
            found = self._parse(result)
            self._check_input(result.get("input"), found.documents)
            with open(self._hashes, "rb") as file:
                self._load(file, result["hashes"])
            run.resumed += found.documents
            run.add(found, int(result["bad_rows"]), list(result["listed_bad_rows"]))
            return 0
        self._finished.remove()
        modified = _find_time(self._source)
        with self._partial as partial, naming_errors(self._name, self._hashes):
            state = partial.load(run.recipe) or State(recipe=run.recipe)
            if state.line and not self._hashes.is_file():
                raise self._broken("their hashes are missing")
            with open(self._hashes, "r+b", opener=_open_own) as hashes:
                stream = _Stream(partial, state, hashes, run)
                watched = _Watched(progress)
                if state.line:
                    stream.counts = self._parse(state.more)
                    stream.hash_digest = self._load(hashes, state.more["hashes"])
                    run.resumed += stream.counts.documents
                hashes.truncate()
                try:
                    documents = read_documents([self._source], form=self._form, progress=watched)
                    stream.clean(documents)
                    more = stream.describe()
                    partial.finish(is_gzip=is_gzip(partial.target))
                except BaseException:
                    stream.keep()
                    raise
        run.add(stream.counts, state.bad_rows, state.listed_bad_rows)
        more |= {"bad_rows": state.bad_rows, "listed_bad_rows": state.listed_bad_rows}
        more["input"] = {
            "modified": modified, "line": state.line, "digest": state.input_digest,
        }  # fmt: skip
        self._finished.save(more)
        return watched.done

    def _parse(self, more: dict[str, Any]) -> Counts:
        """What was counted, with what else is stored checked."""
        counts, hashes = Counts.parse(more.get("counts")), more.get("hashes")
        if (
            counts is None
            or not isinstance(hashes, dict)
            or type(hashes.get("bytes")) is not int
            or not isinstance(hashes.get("digest"), str)
            or type(more.get("bad_rows", 0)) is not int
            or not isinstance(more.get("listed_bad_rows", []), list)
        ):
            raise self._broken("its counts are none")
        return counts

    def _check_input(self, stored: Any, documents: int) -> None:
        """Reads the input of a whole output again, if it was written since."""
        modified = _find_time(self._source)
        if not isinstance(stored, dict) or set(stored) != {"modified", "line", "digest"}:
            raise self._broken("what it was made from is not said")
        if modified is None or modified == stored["modified"]:
            return
        digest, number = hashlib.blake2b(digest_size=16), 0
        found = read_documents([self._source], form=self._form)
        while contents := [document.content for document in islice(found, _DOCUMENTS_AT_ONCE)]:
            number += len(contents)
            _update(digest, contents)
        if number != stored["line"] or (number and digest.hexdigest() != stored["digest"]):
            raise FileExistsError(
                f"{self._name}: it is there, made of {documents} documents that its input no "
                "longer holds; start anew without resume"
            )

    def _load(self, file: IO[bytes], stored: dict[str, Any]) -> Any:
        """Takes stored hashes, and returns their digest."""
        digest, left = hashlib.blake2b(digest_size=16), stored["bytes"]
        parts = []
        while left > 0:
            # Whole hashes: so many that they need no memory to speak of.
            part = file.read(min(left, READ_BYTES * 10))
            if not part:
                break
            digest.update(part)
            parts.append(part)
            left -= len(part)
            if len(parts) == 64:
                self._run.seen.load(b"".join(parts))
                parts = []
        if left or digest.hexdigest() != stored["digest"]:
            raise self._broken("their hashes are not those that were written")
        self._run.seen.load(b"".join(parts))
        return digest

    def _broken(self, reason: str) -> ValueError:
        return ValueError(
            f"{self._name}: the rows of it that are there cannot be gone on with: {reason}; start "
            "anew without resume"
        )


def _find_time(source: str | os.PathLike[str]) -> int | None:
    """When a regular file was written last, in nanoseconds."""
    if is_standard(source) or not Path(source).is_file():
        return None
    return Path(source).stat().st_mtime_ns


def _open_own(path: str, _: int) -> int:
    """Opens a file of ours, and no other through a link that somebody put there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


class _Stream:
    """The documents of one file, cleaned and written."""

    def __init__(self, partial: Partial, state: State, hashes: IO[bytes], run: Run) -> None:
        self.counts = Counts()
        self.hash_digest: Any = hashlib.blake2b(digest_size=16)
        self._partial, self._state, self._hashes, self._run = partial, state, hashes, run
        self._output_digest = partial.cut(state)
        self._saved = time.monotonic()
        self._is_between = True

    def clean(self, documents: Iterator[RawDocument]) -> None:
        """Cleans what is not done yet."""
        state = self._state
        for batch in self._read(documents):
            self._is_between = False
            self._write(batch)
            state.line, state.input_digest = batch.line, batch.digest
            state.rows = self.counts.documents
            state.bad_rows += batch.bad_rows
            room = LISTED_ROWS - len(state.listed_bad_rows)
            state.listed_bad_rows += batch.listed_bad_rows[:room]
            self._is_between = True
            if time.monotonic() - self._saved >= _SAVE_SECONDS:
                self._save()
        self._hashes.flush()

    def keep(self) -> None:
        """Saves what is done before an early end, or removes the files if that is nothing."""
        if not self._state.line:
            self._partial.remove()
        elif self._is_between:
            with suppress(OSError, ValueError):  # the state before is whole, too
                self._save()

    def describe(self) -> dict[str, Any]:
        """What a later start needs to know besides the state."""
        hashes = {"bytes": self._hashes.tell(), "digest": self.hash_digest.hexdigest()}
        return {"counts": asdict(self.counts), "hashes": hashes}

    def _read(self, documents: Iterator[RawDocument]) -> Iterator[_Batch]:
        """Batches of the documents that are not done yet."""
        begin, expected = self._state.line, self._state.input_digest
        digest = hashlib.blake2b(digest_size=16)
        batch, number = _Batch(), 0
        contents: list[bytes] = []
        for number, document in enumerate(documents, 1):
            contents.append(document.content)
            if number <= begin:
                # One call for many: each costs as much as a short document.
                if number == begin or len(contents) >= _DOCUMENTS_AT_ONCE:
                    _update(digest, contents)
                if number == begin and digest.hexdigest() != expected:
                    raise self._foreign(document.name)
                continue
            try:
                batch.add(document)
            except ValueError as error:
                problem = f"{document.name}:{document.line}: {error}"
                if not self._run.skips:
                    raise ValueError(problem) from None
                batch.bad_rows += 1
                batch.listed_bad_rows.append(problem)
            batch.size += len(document.content)
            if batch.size >= _BYTES_AT_ONCE or len(contents) >= _DOCUMENTS_AT_ONCE:
                _update(digest, contents)
                batch.line, batch.digest = number, digest.hexdigest()
                yield batch
                batch = _Batch()
        if number < begin:
            raise self._foreign("its input")
        if batch.size:
            _update(digest, contents)
            batch.line, batch.digest = number, digest.hexdigest()
            yield batch

    def _write(self, batch: _Batch) -> None:
        run, counts = self._run, self.counts
        cleaned = clean_texts(batch.texts, run.config, threads=run.threads)
        distinct = remove_duplicates(cleaned.texts, run.seen, run.config, threads=run.threads)
        for found in (cleaned.counts, distinct.counts):
            for name, each in found.items():
                counts.count(name, each.documents, each.characters)
        counts.documents += len(batch.texts)
        counts.characters += sum(map(len, batch.texts))
        kept = [text for text in distinct.texts if text is not None]
        counts.kept_documents += len(kept)
        counts.kept_characters += sum(map(len, kept))
        content = batch.format(distinct.texts)
        added = run.seen.take_added()
        self.hash_digest.update(added)
        self._output_digest.update(content)
        with naming_errors(self._partial.name):
            self._hashes.write(added)
            self._partial.file.write(content)
        self._state.output_bytes += len(content)

    def _foreign(self, place: str) -> FileExistsError:
        return FileExistsError(
            f"{self._partial.name}: {self._state.rows} documents of it are there, made from "
            f"another beginning of {place}; start anew without resume"
        )

    def _save(self) -> None:
        with naming_errors(self._partial.name):
            self._hashes.flush()
        self._state.more = self.describe()
        self._state.output_digest = self._output_digest.hexdigest()
        self._partial.save(self._state)
        self._saved = time.monotonic()


def _update(digest: Any, contents: list[bytes]) -> None:
    """Adds lines to a digest, and forgets them."""
    digest.update(b"\n".join([*contents, b""]))
    contents.clear()


@dataclass(slots=True)
class _Batch:
    """Documents that are cleaned together, and where the input is behind them."""

    texts: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of JSONL, with the keys that stay."""
    size: int = 0
    line: int = 0
    digest: str = ""
    bad_rows: int = 0
    listed_bad_rows: list[str] = field(default_factory=list)
    is_text: bool = False

    def add(self, document: RawDocument) -> None:
        """Adds a document, or raises `ValueError` if it cannot be used."""
        if document.form == "jsonl":
            row = parse_row(document.content)
            text = row.get("text")
            if not isinstance(text, str):
                raise ValueError(f"expected a text under 'text', got {text!r:.60}")
            if max(map(document.content.count, (b"[", b"{"))) > _DEEP:
                _check_depth(row)
            self.rows.append(row)
        else:
            text = document.parse()
            self.is_text = document.form == "text"
        self.texts.append(text)

    def format(self, texts: Sequence[str | None]) -> bytes:
        """The lines of an output, without the texts that are dropped."""
        if self.is_text:
            return "".join([f"{text}\n" for text in texts if text is not None]).encode()
        rows = self.rows or [{} for _ in texts]
        lines = []
        for row, text in zip(rows, texts, strict=True):
            if text is not None:
                row["text"] = text
                lines.append(to_json(row) + "\n")
        return "".join(lines).encode()


def _check_depth(row: Any) -> None:
    """Refuses what could be read and not be written: of deep lists writing needs more stack."""
    for _ in range(10):
        row = [row]
    try:
        refuse_surrogates(row)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None


class _Watched:
    """Progress, and how far it is."""

    def __init__(self, progress: Callable[[int], object] | None) -> None:
        self.done = 0
        self._progress = progress

    def __call__(self, done: int) -> None:
        self.done = done
        if self._progress is not None:
            self._progress(done)
