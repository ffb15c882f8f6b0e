"""What E2E's texts hold: values of fields, and phrases with their places; both also of made texts.

Values are found by their words, phrases by the parser that the package `textblob` carries: a table
of words and rules (NP, VP, PP, ADJP, ADVP), no model.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lmcore.diffusion.pairs import References
    from lmcore.diffusion.tokenization import TextTokenizer

DATA, PACKAGE = "text/e2e", "textblob"
_FILES = ("devset.csv", "testset_w_refs.csv")
_VALUE = re.compile(r"(\w[\w ]*)\[([^\]]*)\]")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
# yes and no are said in many ways.
_UNSPOKEN = ("familyFriendly",)
OUTSIDE = "O"
"""Of a word in no phrase, of marks around a text and of padding."""


class Value(NamedTuple):
    """A field of a restaurant, and what it is there."""

    field: str
    words: tuple[int, ...]
    """Ids of the value."""


class Span(NamedTuple):
    """A phrase: words `start` to `end`, both counted from 0 and within it."""

    start: int
    end: int
    label: str
    """Such as NP."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Restaurants:
    """E2E's descriptions, divided by what they describe."""

    trained: tuple[str, ...]
    """Texts to train on."""
    held: tuple[References, ...]
    """Restaurants of none of them, with their texts."""


def read_restaurants(seed: int, held: int) -> Restaurants:
    """Returns the texts of E2E's development and test files.

    Args:
        seed: of the division.
        held: how many restaurants are held out, with all of their texts.

    Raises:
        OSError: a file of `LMCORE_DATA` cannot be read.
    """
    from lmcore.diffusion.pairs import PairReader, group_references
    from lmcore.training.seeding import permute

    folder = Path(os.environ["LMCORE_DATA"], DATA)
    pairs = [pair for name in _FILES for pair in PairReader(folder / name)]
    groups = group_references(pairs)
    order = permute(seed, 0, len(groups))
    trained = [text for i in sorted(order[held:]) for text in groups[i].targets]
    return Restaurants(trained=tuple(trained), held=tuple(groups[i] for i in order[:held]))


def make_tokenizer(texts: Sequence[str]) -> TextTokenizer:
    """Returns a tokenizer of the words that come twice or more, in lower case.

    Args:
        texts: to be told.
    """
    from lmcore.diffusion.tokenization import make_bert_tokenizer

    tokenizer = make_bert_tokenizer(list(_SPECIAL)).tokenizer
    normalize, split = tokenizer.normalizer, tokenizer.pre_tokenizer
    counts = Counter(
        word for text in texts for word, _ in split.pre_tokenize_str(normalize.normalize_str(text))
    )
    words = sorted(word for word, count in counts.items() if count > 1)
    return make_bert_tokenizer([*_SPECIAL, *words])


def read_values(source: str, tokenizer: TextTokenizer) -> list[Value]:
    """Returns the values of a restaurant that can stand in a text.

    Args:
        source: such as `name[Aromi], area[riverside]`.
        tokenizer: of the texts; a value with a word that it does not know is left out.
    """
    found = [(field.strip(), value) for field, value in _VALUE.findall(source)]
    ids = tokenizer.encode_batch([value for _, value in found])
    return [
        Value(field, tuple(words))
        for (field, _), words in zip(found, ids, strict=True)
        if field not in _UNSPOKEN and words and tokenizer.unknown not in words
    ]


def has_value(ids: Sequence[int], value: Value) -> bool:
    """Returns whether the words of a value stand in a text, one behind the other.

    Args:
        ids: of the text.
        value: to be found.

    Example:
        >>> has_value([7, 8, 9], Value("food", (8, 9))), has_value([8, 7, 9], Value("", (8, 9)))
        (True, False)
    """
    size = len(value.words)
    return any(tuple(ids[i : i + size]) == value.words for i in range(len(ids) - size + 1))


def tag_words(words: Sequence[str]) -> list[str]:
    """Returns what each word is of a phrase: `B-NP` at its beginning, `I-NP` within, or `O`.

    Args:
        words: of a text, without blanks in them.

    Raises:
        ImportError: the package `textblob` is not installed.
    """
    from textblob.en import parse

    with warnings.catch_warnings():
        # It leaves its table's file open.
        warnings.simplefilter("ignore", ResourceWarning)
        parsed = parse(" ".join(words), tokenize=False, tags=True, chunks=True).split()
    tags = [token[2] for sentence in parsed for token in sentence]
    if len(tags) != len(words):
        raise ValueError(f"expected {len(words)} tags: got {len(tags)}")
    return tags


def find_spans(tags: Sequence[str]) -> list[Span]:
    """Returns the phrases of a text.

    Args:
        tags: as `tag_words` gives them.

    Example:
        >>> find_spans(["B-NP", "I-NP", "B-NP", "O", "I-VP"])
        [Span(start=0, end=1, label='NP'), Span(start=2, end=2, label='NP')]
    """
    found: list[Span] = []
    for place, tag in enumerate(tags):
        kind, _, label = tag.partition("-")
        if kind == "B":
            found.append(Span(place, place, label))
        elif kind == "I" and found and found[-1][1:] == (place - 1, label):
            found[-1] = Span(found[-1].start, place, label)
    return found


def allow_span(span: Span, kinds: Sequence[str], length: int, first: int) -> NDArray[np.bool_]:
    """Returns which tags the positions of a row may have, so that it holds a phrase there.

    Args:
        span: the phrase.
        kinds: all C tags.
        length: L, of the row.
        first: position of the row's first word.

    Returns:
        `[L, C]` bool: what is not of the phrase, and not right behind it, may be anything.

    Example:
        >>> allow_span(Span(0, 1, "NP"), ["B-NP", "I-NP", "O"], 4, 1).astype(int).tolist()
        [[1, 1, 1], [1, 0, 0], [0, 1, 0], [1, 0, 1]]
    """
    allowed = np.ones((length, len(kinds)), np.bool_)
    begin, within = (np.array([f"{kind}-{span.label}" == k for k in kinds]) for kind in "BI")
    start, end = first + span.start, first + span.end
    allowed[start] = begin
    allowed[start + 1 : end + 1] = within
    if end + 1 < length:
        allowed[end + 1] = ~within
    return allowed
