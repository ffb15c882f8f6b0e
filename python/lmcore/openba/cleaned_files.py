"""Files of texts become files of clean texts, and none that stood before.

Each input has one output of its name in a folder, and `report.json` says what each rule did. A run
that ended early goes on, and ends with the same bytes:

| file, beside the output | what it holds |
| --- | --- |
| `.<digest of the name>.lmcore-rows`, `-state` | the rows so far, and where they come from |
| `.<digest of the name>.lmcore-hashes` | hashes of its texts and sentences, until the run ends |
| `.<digest of the name>.lmcore-done` | that the output is whole, until the run ends |
| `.lmcore-key` | the key of the hashes, until the run ends |

Hashes are read again, and no text is; nothing is trusted that has not its digest.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lmcore._files import FolderLock, find_file, write_text
from lmcore._streams import is_standard
from lmcore.openba.cleaned_output import LISTED_ROWS, Counts, Output
from lmcore.openba.cleaning import CleanConfig, RuleCount
from lmcore.openba.documents import find_form
from lmcore.ops.duplicates import Duplicates

REPORT = "report.json"
_KEY = ".lmcore-key"
# Names that the run's own files have in the folder.
_OWN = re.compile(r"\.lock|\.lmcore-.*|\.[0-9a-f]{16}\.lmcore-.*")


@dataclass(kw_only=True, slots=True, frozen=True)
class CleanSummary:
    """What became of the documents."""

    documents: int
    """That were read, without the bad rows."""
    kept_documents: int
    characters: int
    """That were read."""
    kept_characters: int
    rules: dict[str, RuleCount]
    """By rule that is on; and `empty` and `unsettled`, two reasons to drop a document."""
    bad_rows: int
    """Documents that could not be used."""
    listed_bad_rows: list[str]
    """Place and problem of the first 1000 of them."""
    distinct: int
    """Texts and sentences whose hashes are remembered."""
    hash_bytes: int
    """Memory that these take; it depends on the run's key, a little."""
    resumed_documents: int
    """Those that an earlier start did."""
    outputs: list[str]
    """Names of the files, in the order of the inputs."""


def clean_files(
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    config: CleanConfig | None = None,
    *,
    form: str = "auto",
    resume: bool = True,
    skip_bad_rows: bool = False,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> CleanSummary:
    r"""Writes the clean texts of files into a folder, and returns what there was.

    Of a JSONL file the other keys stay; of parquet the column `text` is written as JSONL. The
    first occurrence of what stands twice is kept, over all files in their order.

    Args:
        files: text files (a line is a document), JSONL (`text`), parquet (column `text`); `-` is
            standard input.
        out: folder of the outputs; made if it is not there.
        config: the rules.
        form: of the files: `auto`, `text`, `jsonl` or `parquet`.
        resume: go on where an earlier start ended, if one did; or start anew.
        skip_bad_rows: count and list documents that cannot be used instead of raising.
        max_memory: bytes that the hashes of texts and sentences may take; None for no bound.
        threads: number of threads; all cores if None. The result does not depend on it.
        progress: called with the bytes read so far, of all files.

    Raises:
        FileExistsError: another process cleans into the folder, or an earlier start did so from
            other inputs or by other rules.
        ImportError: a package of an extra is not installed, and needed.
        MemoryError: the hashes need more memory than they may take.
        OSError: a file cannot be read or written.
        ValueError: a document cannot be used, two inputs or an input and an output have the same
            name, an input has that of a file of the run, or an argument is out of its range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file, out = Path(folder, "a.txt"), Path(folder, "clean")
        ...     _ = file.write_text("It rains, see www.a.org.\nGo!\nIt rains, see www.a.org.\n")
        ...     summary = clean_files([file], out, CleanConfig(minimum_words=3))
        ...     Path(out, "a.txt").read_text(), summary.rules["duplicate_documents"].documents
        ('It rains, see .\n', 1)
    """
    config = config or CleanConfig()
    if not files:
        raise ValueError("give at least one file: got none")
    names = _name_outputs(files, form)
    inputs = ["/dev/stdin" if is_standard(file) else file for file in files]
    sizes = [_find_size(file) for file in files]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder, doing="cleaning").hold():
        for name in (*names, REPORT):
            find_file(folder / name, inputs)
        recipe = {
            "rules": {each.name: getattr(config, each.name) for each in fields(config)},
            "files": [os.fspath(file) for file in files],
            "forms": [find_form(file, form) for file in files],
            "sizes": sizes,
            "hash_key": _take_key(folder / _KEY, resume),
        }
        recipe = json.loads(json.dumps(recipe))
        run = _Run(config, recipe, max_memory, threads, skip_bad_rows)
        outputs = [
            Output(folder / name, file, kind, run)
            for name, file, kind in zip(names, files, recipe["forms"], strict=True)
        ]
        if not resume:
            for output in outputs:
                output.forget(is_new=True)
        before = 0
        for output, size in zip(outputs, recipe["sizes"], strict=True):
            read = output.clean(None if progress is None else _Shifted(progress, before))
            before += size or read
        summary = run.summarize(names)
        content = asdict(summary)
        # The same bytes, however often it was started, and under whatever key.
        del content["resumed_documents"], content["hash_bytes"]
        report = {"config": recipe["rules"], **content}
        write_text(folder / REPORT, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
        for output in outputs:
            output.forget()
        (folder / _KEY).unlink(missing_ok=True)
    return summary


def _name_outputs(files: Sequence[str | os.PathLike[str]], form: str) -> list[str]:
    """Names of the outputs, all of them different."""
    names: list[str] = []
    for file in files:
        kind = find_form(file, form)
        name = Path(file).name
        if is_standard(file):
            name = "standard-input.jsonl" if kind == "jsonl" else "standard-input.txt"
        elif kind == "parquet":
            name = Path(name).stem + ".jsonl"
        if name in names or name == REPORT:
            other = files[names.index(name)] if name in names else "the report"
            raise ValueError(f"{os.fspath(file)}: its output is {name}, as that of {other}")
        if _OWN.fullmatch(name):
            raise ValueError(
                f"{os.fspath(file)}: its output is {name}, a file of the run itself: give it "
                "another name"
            )
        names.append(name)
    return names


def _take_key(file: Path, resume: bool) -> str:
    """The key of the hashes, in digits: that of an earlier start, or a new one.

    It is unknown to who wrote the texts: nobody can make some that are taken for others.
    """
    if resume and file.is_file():
        key = file.read_text(encoding="utf-8", errors="replace").strip()
        if re.fullmatch("[0-9a-f]{32}", key):
            return key
    key = os.urandom(16).hex()
    if file.is_symlink():  # of whoever put it there: its end is no file of ours
        file.unlink()
    write_text(file, f"{key}\n")
    return key


def _find_size(file: str | os.PathLike[str]) -> int | None:
    """Bytes of a regular file; what is not there is named before anything is made."""
    if is_standard(file):
        return None
    found = Path(file).stat()
    return found.st_size if stat.S_ISREG(found.st_mode) else None


@dataclass(slots=True)
class _Shifted:
    """Progress within one of several files."""

    progress: Callable[[int], object]
    before: int

    def __call__(self, done: int) -> None:
        self.progress(self.before + done)


class _Run:
    """What is shared by all files: the hashes, and what is counted."""

    def __init__(
        self,
        config: CleanConfig,
        recipe: dict[str, Any],
        max_memory: int | None,
        threads: int | None,
        skip_bad_rows: bool,
    ) -> None:
        self.config = config
        self.recipe = recipe
        self.threads = threads
        self.skips = skip_bad_rows
        self.counts = Counts()
        self.bad_rows = 0
        self.listed_bad_rows: list[str] = []
        self.resumed = 0
        key = bytes.fromhex(recipe["hash_key"])
        self.seen = Duplicates(key=key, max_memory=max_memory, keeps_added=True)

    def add(self, counts: Counts, bad_rows: int, listed: list[str]) -> None:
        """Counts what one file had."""
        self.counts.add(counts)
        self.bad_rows += bad_rows
        self.listed_bad_rows += listed[: LISTED_ROWS - len(self.listed_bad_rows)]

    def summarize(self, names: list[str]) -> CleanSummary:
        """What there was in all files."""
        counts = self.counts
        on = (*self.config.rules, "empty", "unsettled")
        rules = {name: RuleCount.of(counts.rules.get(name, (0, 0))) for name in on}
        return CleanSummary(
            documents=counts.documents, kept_documents=counts.kept_documents,
            characters=counts.characters, kept_characters=counts.kept_characters, rules=rules,
            bad_rows=self.bad_rows, listed_bad_rows=self.listed_bad_rows,
            distinct=len(self.seen), hash_bytes=self.seen.memory_bytes,
            resumed_documents=self.resumed, outputs=names,
        )  # fmt: skip


__all__ = ["REPORT", "CleanSummary", "clean_files"]
