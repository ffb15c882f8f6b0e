"""Columns with a gold and a predicted label per word, as taggers print them, become rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lmcore.ner.mentions import write_generation

# Of BIO, BIOES and BILOU.
_PREFIXES = {"B": "B", "I": "I", "E": "I", "L": "I", "S": "B", "U": "B"}
_MARK = b"-DOCSTART-"


def group_lines(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    """Yields the lines of each sentence, with the number of the first.

    Args:
        lines: with their numbers; blank lines and those of `-DOCSTART-` divide sentences.

    Example:
        >>> [*group_lines(enumerate([b"in O O", b"York B-city O", b"", b"on O O"], 1))]
        [(1, [b'in O O', b'York B-city O']), (4, [b'on O O'])]
    """
    sentence: list[bytes] = []
    first = 0
    for number, line in lines:
        if line and not line.startswith(_MARK):
            first = first if sentence else number
            sentence.append(line)
        elif sentence:
            yield first, sentence
            sentence = []
    if sentence:
        yield first, sentence


def convert_columns(sentence: list[bytes]) -> dict[str, Any]:
    """Returns a sentence as a row: words, gold labels, and the predicted ones as text.

    Labels of BIOES and BILOU become those of BIO.

    Args:
        sentence: its lines, in which tabs or white space divide columns: the word comes first,
            the gold label last but one, the predicted label last.

    Raises:
        ValueError: a line is not UTF-8 or has less than three columns, a label has another form,
            or a word cannot be scored.

    Example:
        >>> convert_columns([b"York S-city O"])["labels"]
        ['B-city']
    """
    words, gold, predicted = [], [], []
    for index, line in enumerate(sentence, start=1):
        columns = _split(line)
        if len(columns) < 3:
            raise ValueError(
                f"word {index} of the sentence: expected a word, a gold and a predicted label: "
                f"got {len(columns)} columns"
            )
        words.append(columns[0])
        gold.append(_read_label(columns[-2], index))
        predicted.append(_read_label(columns[-1], index))
    types = {label[2:] for label in (*gold, *predicted) if label != "O"}
    return {
        "types": sorted(types),
        "words": words,
        "labels": gold,
        "prediction": write_generation(words, predicted),
    }


def _read_label(label: str, index: int) -> str:
    prefix, _, kind = label.partition("-")
    if label == "O":
        return label
    if kind and prefix in _PREFIXES:
        return f"{_PREFIXES[prefix]}-{kind}"
    raise ValueError(
        f"word {index} of the sentence: expected O or a label such as B-type: got {label[:40]!r}"
    )


def _split(line: bytes) -> list[str]:
    """Tabs may stand between words that hold spaces."""
    text = line.decode()
    return [part.strip() for part in text.split("\t")] if "\t" in text else text.split()
