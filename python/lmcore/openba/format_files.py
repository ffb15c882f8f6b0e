"""Files of dialogues, programs, instructions and searches become rows with a source and a target.

A file is JSONL, or one JSON text: a list of objects, or an object of them, which is held in memory
as a whole. Rows come in the order of the files; training shuffles them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from lmcore._json import parse_json
from lmcore._rows import Progress, RowReader
from lmcore._text import to_json
from lmcore.openba.dialogues import find_instruction, find_turns, take_text
from lmcore.openba.formats import (
    Pair,
    format_chat,
    format_code,
    format_instruction_generation,
    format_tool,
    guess_language,
)
from lmcore.openba.row_output import open_rows
from lmcore.openba.templates import LANGUAGES

FORMATS = ("chat", "code", "instruction-generation", "tool")
_LISTED_ROWS = 1000


@dataclass(kw_only=True, slots=True, frozen=True)
class FormatConfig:
    """How rows are written in one of the formats.

    Raises:
        ValueError: a value is outside of its range.

    Example:
        >>> FormatConfig(format="chat").identity_copies
        10
    """

    format: str
    """`chat`, `code`, `instruction-generation` or `tool`."""
    language: str = "auto"
    """`en` or `zh` of rows that name none; `auto` looks at their characters."""
    max_turns: int | None = None
    """Most turns of a chat's source; None keeps all of them."""
    identity_copies: int = 10
    """How often each pair of a dialogue about the model itself is written; 10 in the paper."""
    chinese_copies: int = 2
    """How often a Chinese pair of instruction generation is written; 2 in the paper."""

    def __post_init__(self) -> None:
        """Raises ValueError if a value is outside of its range."""
        if self.format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}: got {self.format!r:.60}")
        if self.language not in ("auto", *LANGUAGES):
            known = ", ".join(("auto", *LANGUAGES))
            raise ValueError(f"language must be one of {known}: got {self.language!r:.60}")
        for name in ("max_turns", "identity_copies", "chinese_copies"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1: got {value}")


@dataclass(kw_only=True, slots=True)
class FormatSummary:
    """What became of rows."""

    rows: int = 0
    """That were read and could be used."""
    pairs: int = 0
    """That are written, with copies."""
    copies: int = 0
    """Of them those that stand there already."""
    languages: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LANGUAGES, 0))
    """Pairs of each language."""
    left_out: dict[str, int] = field(default_factory=dict)
    """What of the rows has no place in the format, by what it is."""
    bad_rows: int = 0
    listed_bad_rows: list[str] = field(default_factory=list)
    """Place and problem of the first 1000 of them."""


def write_formatted(
    files: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    config: FormatConfig,
    *,
    identity: Sequence[str | os.PathLike[str]] = (),
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
) -> FormatSummary:
    """Writes the pairs of files into a JSONL file, and returns what became of their rows.

    A row holds `source`, `target`, `task`, which is the format, and `language`. The file has its
    name when it is whole.

    Args:
        files: see `lmcore.openba.dialogues` for chats; `instruction` and `output` of programs;
            `instruction` and `response` or `conversations` of instruction generation; `query`,
            `results` and perhaps `question` of a tool. `.gz` is decompressed, `-` is standard
            input.
        target: the file; a name that ends with `.gz` is compressed, `-` is standard output.
        config: which format, and how.
        identity: files of dialogues about the model itself, for a chat.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        progress: called with the bytes read so far, of all files.

    Raises:
        FileExistsError: another process writes the target.
        OSError: a file cannot be read or written.
        ValueError: a row cannot be used, there are none, or the target is an input.

    Source:
        OpenBA (arXiv 2309.10706), OpenBA-Chat, OpenBA-Code, OpenBA-InstructGen, OpenBA-Tool.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     chat, out = Path(folder, "chat.jsonl"), Path(folder, "out.jsonl")
        ...     _ = chat.write_text('{"conversations": ["Hi.", "Hello."]}')
        ...     print(write_formatted([chat], out, FormatConfig(format="chat")).pairs)
        ...     json.loads(out.read_text())["source"]
        1
        'Human: Hi. Assistant:'
    """
    if not [*files, *identity]:
        raise ValueError("give at least one file: got none")
    if identity and config.format != "chat":
        raise ValueError(f"dialogues about the model go with the format chat: got {config.format}")
    summary = FormatSummary()
    before = 0
    with open_rows(target, [*files, *identity]) as write:
        for path, copies in chain(
            ((file, 1) for file in files), ((file, config.identity_copies) for file in identity)
        ):
            read = 0

            def count(done: int) -> None:
                nonlocal read
                read = done
                if progress is not None:
                    progress(before + done)  # noqa: B023 - called within this turn alone

            reader = RowReader(path, skip_bad_rows=skip_bad_rows, progress=count)
            for lines in _format(reader, config, copies, summary):
                write(lines)
            summary.bad_rows += reader.bad_rows
            room = _LISTED_ROWS - len(summary.listed_bad_rows)
            summary.listed_bad_rows += reader.listed_bad_rows[:room]
            before += read
        if not summary.pairs:
            names = ", ".join(os.fspath(file) for file in [*files, *identity])
            raise ValueError(f"{names:.200}: expected rows, got none that can be used")
    return summary


def _format(
    reader: RowReader, config: FormatConfig, copies: int, summary: FormatSummary
) -> Iterator[bytes]:
    """The lines of each pair of a file's rows."""

    def count_copies(language: str) -> int:
        is_repeated = config.format == "instruction-generation" and language == "zh"
        count = copies * (config.chinese_copies if is_repeated else 1)
        summary.pairs += count
        summary.copies += count - 1
        summary.languages[language] += count
        return count

    for line, row in _read_objects(reader):
        left_out: Counter[str] = Counter()
        try:
            pairs, language = _make_pairs(row, config, left_out)
        except ValueError as error:
            problem = str(error)
        else:
            summary.rows += 1
            for name, count in left_out.items():
                if count:
                    summary.left_out[name] = summary.left_out.get(name, 0) + count
            for pair in pairs:
                yield (_to_line(pair, config.format, language) * count_copies(language)).encode()
            continue
        reader.refuse(line, problem)


def _make_pairs(
    row: dict[str, Any], config: FormatConfig, left_out: Counter[str]
) -> tuple[Iterator[Pair], str]:
    """The pairs of a row and their language."""
    if config.format == "chat":
        turns = find_turns(row, left_out)
        if config.max_turns is not None:
            left_out["first turns of sources"] += max(0, len(turns) - config.max_turns)
        language = _find_language(row, config, " ".join(map(" ".join, turns)))
        return format_chat(turns, max_turns=config.max_turns), language
    if config.format == "code":
        instruction, context, output = find_instruction(row)
        language = _find_language(row, config, f"{instruction} {context}")
        return iter([format_code(instruction, output, context)]), language
    if config.format == "tool":
        query, results = take_text(row, "query"), _join(row.get("results"))
        question = take_text(row, "question") if row.get("question") is not None else None
        language = _find_language(row, config, f"{question or query} {results}")
        return iter([format_tool(query, results, question=question)]), language
    pair, language = _make_generation(row, config, left_out)
    return iter([pair]), language


def _make_generation(
    row: dict[str, Any], config: FormatConfig, left_out: Counter[str]
) -> tuple[Pair, str]:
    if "instruction" in row:
        instruction, context, answer = find_instruction(row)
        left_out["contexts"] += bool(context.strip())
    else:
        turns = find_turns(row, left_out)
        instruction, answer = turns[0]
        # What is said later follows from what was said before, not from the answer alone.
        left_out["later turns"] += len(turns) - 1
    language = _find_language(row, config, f"{instruction} {answer}")
    return format_instruction_generation(answer, instruction, language=language), language


def _find_language(row: dict[str, Any], config: FormatConfig, text: str) -> str:
    own = row.get("language", row.get("lang"))
    if own in LANGUAGES:
        return str(own)
    return guess_language(text) if config.language == "auto" else config.language


def _join(results: Any) -> str:
    if isinstance(results, str):
        return results
    if isinstance(results, list) and all(isinstance(result, str) for result in results):
        return " ".join(result.strip() for result in results)
    raise ValueError(f"expected a text or a list of texts under 'results', got {results!r:.60}")


def _to_line(pair: Pair, task: str, language: str) -> str:
    row = {"source": pair.source, "target": pair.target, "task": task, "language": language}
    return f"{to_json(row)}\n"


def _read_objects(reader: RowReader) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with the number of their line, or of their place in its list."""
    contents = reader.contents()
    first = next(contents)
    if not first[1].startswith(b"[") and first[1] != b"{":
        for line, content in chain([first], contents):
            value = reader.parse(line, content)
            if value is not None:
                yield line, value
        return
    text = b"\n".join(content for _, content in chain([first], contents))
    try:
        found = parse_json(text.decode())
    except ValueError as error:
        raise ValueError(f"{reader.name}: not JSON: {error}") from None
    for number, item in enumerate(found.values() if isinstance(found, dict) else found, 1):
        # As a row of its own, whose texts are looked at.
        value = reader.parse(number, json.dumps(item).encode())
        if value is not None:
            yield number, value
