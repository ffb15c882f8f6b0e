"""Files of columns: a word and its label in each line, an empty line behind each sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lmcore._streams import Input
from lmcore.ner.labels import is_label

# A file whose sentences are not told apart by empty lines would fill the memory.
_MOST_BYTES = 1 << 24
_LOOKED_AT = 1000
_BLANKS = re.compile("[ \t]+")
_ODD_SPACE = re.compile(r"[^\S \t\n]")
_ODD_ASCII_SPACE = b"\r\x0b\x0c\x1c\x1d\x1e\x1f"
# White space at the edge of a word, and empty columns.
_ODD_EDGES = (b"\t ", b" \t", b"\n ")
_NO_SEPARATORS = bytes(byte for byte in range(256) if byte not in b"\t\n")
_EMPTY_LINE = re.compile(rb"\n[ \t]*\n")
_LINE_END = re.compile("[ \t\r]+\n")
_DOCUMENT = "-DOCSTART-"
# The column of the word, and that of the label.
_PLAIN = ((0, 1), (0, -1), (1, 0))


class Paragraph(NamedTuple):
    """Lines between two empty ones."""

    line: int
    """Of the first one, from 1."""
    text: str
    """The lines, without the end of the last."""
    is_plain: bool
    """Whether each line holds two columns with one tab between, and nothing unusual."""

    @property
    def lines(self) -> list[str]:
        """The lines, without their ends."""
        return self.text.split("\n")


class Columns(NamedTuple):
    """Where words and labels stand."""

    word: int
    """The column of the word, from 0; negative from the end."""
    label: int
    """That of the label."""
    is_tabs: bool
    """Whether tabs separate columns, and words may hold spaces; or white space does."""


@dataclass(slots=True)
class ColumnCounts:
    """Lines that hold no word."""

    comments: int = 0
    """Lines before a sentence that begin with `#` and hold no label."""
    documents: int = 0
    """Lines that say where a document begins, `-DOCSTART-`."""


def read_paragraphs(source: Input) -> Iterator[Paragraph]:
    """Yields what stands between empty lines, a part of the file at a time.

    Args:
        source: an opened file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8, or has no empty lines.
    """
    line, rest = 1, b""
    is_first = True
    while True:
        part = source.read()
        # A carriage return at the end of a part belongs to a line break of the next one.
        data = rest + part
        if is_first:
            data = data.removeprefix(b"\xef\xbb\xbf")
            is_first = False
        if part and data.endswith(b"\r"):
            data, held = data[:-1], b"\r"
        else:
            held = b""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        whole = data
        if part:
            end = _last_empty_line(data)
            whole, rest = data[:end], data[end:] + held
            if len(rest) > _MOST_BYTES:
                raise ValueError(
                    f"{source.name}:{line}: expected an empty line between sentences: "
                    f"got none in {len(rest)} bytes"
                )
        if whole:
            yield from _split(source.name, line, whole)
            line += whole.count(b"\n")
        if not part:
            return


def find_columns(
    name: str, paragraphs: Sequence[Paragraph], word: int | None, label: int | None
) -> Columns:
    """Returns where words and labels stand in a file.

    The label is looked for in the last column, then in the first: it stands where each line has
    one.

    Args:
        name: of the file.
        paragraphs: the first ones.
        word: the column of words, from 1, if it is known.
        label: that of labels.

    Raises:
        ValueError: neither column holds labels; the text names the first such line.
    """
    lines = [
        (paragraph.line + number, line)
        for paragraph in paragraphs
        for number, line in enumerate(paragraph.lines)
        if not _is_aside(line)
    ][:_LOOKED_AT]
    is_tabs = bool(lines) and all("\t" in line for _, line in lines)
    rows = [(number, split_line(line, is_tabs)) for number, line in lines]
    if label is None:
        candidates = (-1, 0) if word != 1 else (-1,)
        for column in candidates:
            if all(len(row) > 1 and is_label(row[column]) for _, row in rows):
                break
        else:
            number, row = next((n, r) for n, r in rows if len(r) < 2 or not is_label(r[-1]))
            found = f"{row[0]!r:.60} and {row[-1]!r:.60}" if len(row) > 1 else "one column"
            raise ValueError(
                f"{name}:{number}: expected a label, such as O or B-city, in the last or the first "
                f"column: got {found}; name the columns where it stands in another"
            )
    else:
        column = label - 1
    if word is not None:
        return Columns(word - 1, column, is_tabs)
    # Label first: the word stands behind it. Else the word comes first.
    return Columns(1 if column == 0 else 0, column, is_tabs)


def read_lines(
    name: str, paragraph: Paragraph, columns: Columns, counts: ColumnCounts
) -> tuple[list[str], list[str]]:
    """Returns the words and labels of a paragraph; none of one that holds asides alone.

    Args:
        name: of the file.
        paragraph: its lines.
        columns: where they stand.
        counts: lines that hold no word are counted here.

    Raises:
        ValueError: a line has too few columns; the text names it.
    """
    if paragraph.is_plain and columns[:2] in _PLAIN:
        text = paragraph.text
        fields = text.split() if " " not in text else text.replace("\n", "\t").split("\t")
        return fields[columns.word :: 2], fields[1 - columns.word :: 2]
    return _read_carefully(name, paragraph, columns, counts)


def split_line(line: str, is_tabs: bool) -> list[str]:
    r"""Returns the columns of a line.

    Args:
        line: without its end.
        is_tabs: whether tabs separate them.

    Example:
        >>> split_line("New York\tB-city", True), split_line("York  NNP B-city", False)
        (['New York', 'B-city'], ['York', 'NNP', 'B-city'])
    """
    if is_tabs:
        return line.split("\t")
    # Not `split()`: to it, spaces of other scripts and control characters are separators.
    columns = line.split(" ")
    if "" in columns or "\t" in line:
        columns = [column for column in _BLANKS.split(line) if column]
    return columns


def _read_carefully(
    name: str, paragraph: Paragraph, columns: Columns, counts: ColumnCounts
) -> tuple[list[str], list[str]]:
    words: list[str] = []
    labels: list[str] = []
    least = max(column + 1 if column >= 0 else -column for column in columns[:2])
    for number, line in enumerate(paragraph.lines):
        row = split_line(line, columns.is_tabs)
        if (
            not words
            and _is_aside(line)
            and not (len(row) >= least and is_label(row[columns.label]))
        ):
            counts.comments += 1
            continue
        if line.startswith(_DOCUMENT):
            counts.documents += 1
            continue
        if len(row) < max(least, 2):
            raise ValueError(
                f"{name}:{paragraph.line + number}: expected {max(least, 2)} columns: "
                f"got {len(row)}"
            )
        words.append(row[columns.word])
        labels.append(row[columns.label])
    return words, labels


def _is_aside(line: str) -> bool:
    """Whether a line may hold no word."""
    return line.startswith(("# ", _DOCUMENT))


def _last_empty_line(data: bytes) -> int:
    """Behind the last empty line, or 0."""
    end = data.rfind(b"\n\n")
    if end >= 0:
        return end + 2
    last = 0
    for match in _EMPTY_LINE.finditer(data):
        last = match.end()
    return last


def _split(name: str, line: int, data: bytes) -> Iterator[Paragraph]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        number = line + data.count(b"\n", 0, error.start)
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1)
        raise ValueError(f"{name}:{number}: not UTF-8 at byte {column + 1}") from None
    # White space at the end of a line is no column, and a line of it is empty.
    ends_in_space = b"\t\n" in data or b"\r" in data or (b" " in data and b" \n" in data)
    if ends_in_space:
        text = _LINE_END.sub("\n", text)
    is_plain = not ends_in_space and _is_plain(data, text)
    for paragraph in text.split("\n\n"):
        if is_plain:
            # The end of the file may lack its empty line.
            if paragraph:
                yield Paragraph(line, paragraph.removesuffix("\n"), True)
            line += paragraph.count("\n") + 2
            continue
        lines = paragraph.split("\n")
        yield from _regroup(line, lines)
        line += len(lines) + 1


def _is_plain(data: bytes, text: str) -> bool:
    """Whether all lines hold two columns, one tab between them, and nothing unusual.

    Args:
        data: whole lines, none of which ends in white space.
        text: the same.
    """
    if data.startswith((b"\n", b"\t", b" ")) or b"\n\t" in data or _DOCUMENT.encode() in data:
        return False
    if b" " in data and any(edge in data for edge in _ODD_EDGES):
        return False
    # A line leaves a tab and a line break, and an empty line a line break alone. Of those there
    # are as many as pairs of line breaks, unless empty lines follow each other or a tab is missing.
    separators = data.translate(None, _NO_SEPARATORS) + (b"" if data.endswith(b"\n") else b"\n")
    rest = separators.replace(b"\t\n", b"")
    if len(rest) != data.count(b"\n\n") or b"\t" in rest:
        return False
    if text.isascii():
        return len(data.translate(None, _ODD_ASCII_SPACE)) == len(data)
    return _ODD_SPACE.search(text) is None


def _regroup(line: int, lines: list[str]) -> Iterator[Paragraph]:
    """What stands between empty lines, of which there may be more than one."""
    held: list[str] = []
    for number, text in enumerate([*lines, ""]):
        if text:
            held.append(text)
        elif held:
            yield Paragraph(line + number - len(held), "\n".join(held), False)
            held = []
