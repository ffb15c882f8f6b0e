"""Rows of many tasks become one bilingual collection of instructions, as BiFlan is.

Each row becomes a source and a target by one of its task's templates; a task has at most so many
rows, and English and Chinese stand in a ratio. What is written, its order and each choice of a
template are functions of the seed and the numbers of rows. Source: OpenBA (arXiv 2309.10706),
stage III; specification section 5.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmcore._files import find_output
from lmcore._rows import Progress
from lmcore._streams import is_standard
from lmcore._text import to_json
from lmcore.openba.balance import balance_languages, cap_groups, divide, parse_ratio
from lmcore.openba.instruction_rows import RowPool
from lmcore.openba.row_output import open_rows
from lmcore.openba.templates import LANGUAGES, PairTemplate, check_language, read_templates
from lmcore.ops.philox import Stream, random_bits

# Of rows that are held in memory at once, as they are written.
_BYTES_AT_ONCE = 1 << 25
_ROWS_AT_ONCE = 1 << 16


@dataclass(kw_only=True, slots=True, frozen=True)
class InstructionConfig:
    """How many rows of which task and language are written.

    Raises:
        ValueError: a value is outside of its range.

    Example:
        >>> InstructionConfig(cap=0)
        Traceback (most recent call last):
        ValueError: cap must be at least 1, or None: got 0
    """

    cap: int | None = 30_000
    """Most rows of a task, None for all of them; 30,000 are FLAN's."""
    ratio: str = "2:1"
    """English to Chinese, or `none` for what there is; 2 : 1 are OpenBA's 66.7 % and 33.3 %."""
    repeat: bool = False
    """Repeat rows of the language that is short instead of leaving out rows of the other."""
    language: str | None = None
    """Of rows that name none, where their templates name none either."""
    seed: int = 0
    """Of choices and the order, below 2**64."""

    def __post_init__(self) -> None:
        """Raises ValueError if a value is outside of its range."""
        if self.cap is not None and self.cap < 1:
            raise ValueError(f"cap must be at least 1, or None: got {self.cap}")
        parse_ratio(self.ratio)
        if self.language is not None:
            check_language(self.language)
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed must be at least 0 and below 2**64: got {self.seed}")


@dataclass(kw_only=True, slots=True, frozen=True)
class TaskShare:
    """What became of the rows of a task in one language."""

    task: str
    language: str
    rows: int
    """That can be used."""
    over_cap: int
    """Left out because the task has more rows than the cap."""
    over_ratio: int
    """Left out because its language has more rows than the ratio allows."""
    repeated: int
    """Rows that are written once more."""
    written: int
    share: float
    """Of all that is written."""


@dataclass(kw_only=True, slots=True, frozen=True)
class InstructionSummary:
    """What became of rows of tasks."""

    rows: int
    """That are written."""
    languages: dict[str, float]
    """Share of each language."""
    short: str | None
    """The language that has too few rows for the ratio; None where neither has."""
    tasks: list[TaskShare]
    bad_rows: int
    listed_bad_rows: list[str]
    """Place and problem of the first 1000 of them."""


def write_instructions(
    files: Sequence[str | os.PathLike[str]],
    templates: str | os.PathLike[str],
    target: str | os.PathLike[str],
    config: InstructionConfig | None = None,
    *,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
) -> InstructionSummary:
    r"""Writes a collection of instructions into a JSONL file, and returns what is in it.

    A row holds `source`, `target`, `task`, `language`, the number of its `template`, from 1, and
    `id` where the task's row has one. The same call writes the same bytes, in an order that the
    seed shuffles. The file has its name when it is whole; a killed run leaves nothing to go on
    with, and is started anew.

    In memory a row takes some 60 bytes, whatever its length; the rows lie in a file without a
    name, in the folder of the target, until they are written.

    Args:
        files: rows of tasks, as JSONL with any fields; `.gz` is decompressed, `-` is standard
            input. The task stands under `task`, or else is the file's name; the language may
            stand under `language`.
        templates: see `read_templates`.
        target: the file; a name that ends with `.gz` is compressed, `-` is standard output.
        config: how many rows of what; `InstructionConfig()` if None.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        progress: called with the bytes read so far, of all files.

    Raises:
        FileExistsError: another process writes the target.
        OSError: a file cannot be read or written.
        ValueError: a template or a row cannot be used, a task has no rows or no template, there
            are no rows of a language of the ratio, or the target is an input.

    Source:
        OpenBA (arXiv 2309.10706), BiFlan.

    Example:
        >>> import json, tempfile
        >>> templates = {"qa": [{"source": "Q: {q}", "target": "{a}", "language": "en"}]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows, file = Path(folder, "qa.jsonl"), Path(folder, "templates.json")
        ...     out = Path(folder, "out.jsonl")
        ...     _ = rows.write_text('{"q": "Why?", "a": "So."}'), file.write_text(
        ...         json.dumps(templates))
        ...     config = InstructionConfig(ratio="none")
        ...     print(write_instructions([rows], file, out, config).languages)
        ...     json.loads(out.read_text())["source"]
        {'en': 1.0, 'zh': 0.0}
        'Q: Why?'
    """
    if not files:
        raise ValueError("give at least one file: got none")
    settings = config or InstructionConfig()
    known = read_templates(templates)
    named = os.fspath(templates)
    with open_rows(target, [*files, templates]) as write:
        pool = RowPool(
            known, named=named, language=settings.language, seed=settings.seed,
            folder=_find_folder(target),
        )  # fmt: skip
        with pool:
            pool.read(files, skip_bad_rows=skip_bad_rows, progress=progress)
            _check_tasks(pool, known, named)
            chosen = _Choice(pool, settings)
            for lines in _render(pool, known, chosen, settings.seed):
                write(lines)
    return chosen.summarize(pool)


def _find_folder(target: str | os.PathLike[str]) -> Path | None:
    """Where rows are kept meanwhile: beside a file, so that there is room for it."""
    if is_standard(target):
        return None
    place = find_output(target)
    return place.parent if place.is_file() or not place.exists() else None


def _check_tasks(pool: RowPool, templates: dict[str, list[PairTemplate]], named: str) -> None:
    known = {group.task for group in pool.groups}
    absent = [task for task in templates if task not in known]
    if absent:
        reason = "no rows that can be used" if pool.bad_rows.count else "no rows"
        raise ValueError(f"{named}: the task {absent[0]!r:.60} has {reason}")


class _Choice:
    """Which rows are written, how often, and in which order."""

    def __init__(self, pool: RowPool, config: InstructionConfig) -> None:
        draws = random_bits(config.seed, Stream.INSTRUCTION_ROWS, range(len(pool)), 1)[:, 0]
        # Of each group the rows with the least draws come first.
        order = np.lexsort((draws, pool.numbers))
        self.counts = np.bincount(pool.numbers, minlength=len(pool.groups)).tolist()
        stops = np.cumsum(self.counts)
        members = [
            order[stop - count : stop] for stop, count in zip(stops, self.counts, strict=True)
        ]
        self.capped = self._cap(pool, [draws[rows] for rows in members], config.cap)
        self.short: str | None = None
        self.quotas = self._balance(pool, config)
        parts, copies = [], []
        for rows, quota in zip(members, self.quotas, strict=True):
            for copy in range(-(-quota // len(rows))):
                part = rows[: quota - copy * len(rows)]
                parts.append(part)
                copies.append(np.full(len(part), copy, np.uint32))
        self.rows: NDArray[np.int64] = np.concatenate(parts)
        self.copies: NDArray[np.uint32] = np.concatenate(copies)
        self._shuffle(config.seed)

    def _cap(self, pool: RowPool, draws: list[NDArray[np.uint64]], cap: int | None) -> list[int]:
        kept = [0] * len(draws)
        numbers = sorted(range(len(draws)), key=lambda number: pool.groups[number].task)
        for _, same in groupby(numbers, key=lambda number: pool.groups[number].task):
            group = [*same]
            for number, count in zip(
                group, cap_groups([draws[n] for n in group], cap), strict=True
            ):
                kept[number] = count
        return kept

    def _balance(self, pool: RowPool, config: InstructionConfig) -> list[int]:
        ratio = parse_ratio(config.ratio)
        if ratio is None:
            return self.capped
        own = [
            [number for number, group in enumerate(pool.groups) if group.language == language]
            for language in LANGUAGES
        ]
        first, second = (sum(self.capped[number] for number in group) for group in own)
        for language, count in zip(LANGUAGES, (first, second), strict=True):
            if not count:
                raise ValueError(
                    f"the ratio {config.ratio} needs rows of both languages: got none of {language}"
                )
        totals = balance_languages((first, second), ratio, repeat=config.repeat)
        if totals != (first, second):
            has_less = totals[0] < first or totals[1] > second
            self.short = LANGUAGES[1] if has_less else LANGUAGES[0]
        quotas = [0] * len(pool.groups)
        for group, total in zip(own, totals, strict=True):
            parts = divide(total, [self.capped[number] for number in group])
            for number, part in zip(group, parts, strict=True):
                quotas[number] = part
        return quotas

    def _shuffle(self, seed: int) -> None:
        keys = np.zeros(len(self.rows), np.uint64)
        for copy in range(int(self.copies.max()) + 1):
            same = np.flatnonzero(self.copies == copy)
            items = self.rows[same]
            stream = Stream.INSTRUCTION_ORDER
            keys[same] = random_bits(seed, stream, items, 1, position=copy)[:, 0]
        order = np.argsort(keys, kind="stable")
        self.rows, self.copies = self.rows[order], self.copies[order]

    def summarize(self, pool: RowPool) -> InstructionSummary:
        total = len(self.rows)
        tasks = []
        for number, group in enumerate(pool.groups):
            count, capped, quota = self.counts[number], self.capped[number], self.quotas[number]
            kept = min(count, max(capped, quota))
            tasks.append(
                TaskShare(
                    task=group.task, language=group.language, rows=count, over_cap=count - kept,
                    over_ratio=max(0, capped - quota), repeated=max(0, quota - count),
                    written=quota, share=quota / total,
                )
            )  # fmt: skip
        shares = {
            language: sum(task.written for task in tasks if task.language == language) / total
            for language in LANGUAGES
        }
        return InstructionSummary(
            rows=total, languages=shares, short=self.short, tasks=tasks,
            bad_rows=pool.bad_rows.count, listed_bad_rows=pool.bad_rows.listed,
        )  # fmt: skip


def _render(
    pool: RowPool, templates: dict[str, list[PairTemplate]], chosen: _Choice, seed: int
) -> Iterator[bytes]:
    """Lines of rows, in the order of the choice."""
    ends: dict[tuple[int, int], str] = {}  # of lines, which many have in common
    start = 0
    while start < len(chosen.rows):
        part = chosen.rows[start : start + _ROWS_AT_ONCE]
        sizes = np.cumsum(pool.lengths[part], dtype=np.int64)
        part = part[: max(1, int(np.searchsorted(sizes, _BYTES_AT_ONCE, "right")))]
        copies = chosen.copies[start : start + len(part)].tolist()
        stream = Stream.INSTRUCTION_TEMPLATES
        draws = random_bits(seed, stream, part, 1, position=1)[:, 0].tolist()
        numbers = pool.numbers[part].tolist()
        lines = []
        for row, number, draw, copy in zip(pool.take(part), numbers, draws, copies, strict=True):
            group = pool.groups[number]
            count = len(group.templates)
            # A row that comes again comes in another wording.
            index = group.templates[((draw * count >> 64) + copy) % count]
            template = templates[group.task][index]
            texts = {"source": template.source.fill(row), "target": template.target.fill(row)}
            rest = ends.get((number, index))
            if rest is None:
                named = {"task": group.task, "language": group.language, "template": index + 1}
                rest = ends[number, index] = f", {to_json(named)[1:-1]}"
            own = f", {to_json({'id': row['id']})[1:-1]}" if "id" in row else ""
            lines.append(f"{to_json(texts)[:-1]}{rest}{own}}}")
        yield ("\n".join(lines) + "\n").encode()
        start += len(part)
