"""Pairs of the data sets in `LMCORE_DATA`, in two parts without a source in common."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lmcore.diffusion.pairs import Pair
    from lmcore.diffusion.tokenization import TextTokenizer

# One source in so many is for tests.
_TEST_SHARE = 8
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(kw_only=True, slots=True, frozen=True)
class TextSet:
    """A data set."""

    folder: str
    """Of `LMCORE_DATA`."""
    files: tuple[str, ...]
    """In it."""
    length: int
    """Positions of a row; pairs that do not fit are left out."""
    blanks: str = ""
    """Characters of sources that become spaces."""


class Question(NamedTuple):
    """A source that is not trained on."""

    place: str
    """File and number of the first pair that has it, from 1."""
    source: str
    references: tuple[str, ...]


@dataclass(kw_only=True, slots=True, frozen=True)
class SplitPairs:
    """A data set in two parts, its texts as words with spaces between them."""

    train: tuple[Pair, ...]
    tests: tuple[Question, ...]
    tokenizer: TextTokenizer
    left_out: float
    """Share of its pairs that do not fit into a row, in per cent."""
    unknown: float
    """Share of words of the references that have no token, in per cent."""


def read_split(
    texts: TextSet, *, tests: int, most_words: int, most_pairs: int | None = None
) -> SplitPairs:
    """Returns a data set in two parts.

    A digest of the source decides which part it is in. A pair is not trained on if either of its
    texts is a source of the tests. The tokenizer has the words that training pairs have twice or
    more.

    Args:
        texts: the data set.
        tests: how many sources there are at most.
        most_words: of the tokenizer, the most frequent ones.
        most_pairs: that are read; all if None.

    Raises:
        OSError: a file of `LMCORE_DATA` cannot be read.
        ValueError: no pair is for tests, or none is left to train on.
    """
    from lmcore.diffusion.pairs import Pair
    from lmcore.diffusion.tokenization import make_bert_tokenizer

    cut = make_bert_tokenizer(_SPECIAL).tokenizer
    blanks = str.maketrans(dict.fromkeys(texts.blanks, " "))

    def join(text: str) -> str:
        """The words of a text as BERT cuts it, in lower case, before it looks them up."""
        normal = cut.normalizer.normalize_str(text)
        return " ".join(word for word, _ in cut.pre_tokenizer.pre_tokenize_str(normal))

    found = [
        (place, Pair(join(pair.source.translate(blanks)), join(pair.target)))
        for place, pair in islice(_read_pairs(texts), most_pairs)
    ]
    fitting = [(place, pair) for place, pair in found if _count_positions(pair) <= texts.length]
    asked = _group_tests(fitting)
    hidden = asked.keys()
    train = [pair for _, pair in fitting if hidden.isdisjoint(pair)]
    if not asked or not train:
        raise ValueError(f"{texts.folder}: {len(asked)} sources for tests, {len(train)} pairs")
    words = Counter(word for pair in train for text in pair for word in text.split())
    frequent = [word for word, count in words.most_common(most_words) if count > 1]
    chosen = tuple(asked.values())[:tests]
    gold = [word for one in chosen for text in one.references for word in text.split()]
    known = set(frequent)
    return SplitPairs(
        train=tuple(train),
        tests=chosen,
        tokenizer=make_bert_tokenizer([*_SPECIAL, *frequent]),
        left_out=100 * (1 - len(fitting) / len(found)),
        unknown=100 * sum(word not in known for word in gold) / len(gold),
    )


def read_original(texts: TextSet, place: str) -> dict[str, str]:
    """Returns the source and the first reference of a question, as they stand in their file.

    Args:
        texts: the data set.
        place: of the question.

    Raises:
        OSError: a file of `LMCORE_DATA` cannot be read.
    """
    found = next(pair for other, pair in _read_pairs(texts) if other == place)
    return {"source": found.source, "reference": found.target}


def read_words(ids: Sequence[int], tokenizer: TextTokenizer) -> str:
    """Returns the words of a text that was made, up to its end.

    Args:
        ids: of the tokens behind the source.
        tokenizer: of `read_split`.
    """
    end = next((k for k, one in enumerate(ids) if one == tokenizer.end), len(ids))
    outside = {tokenizer.start, tokenizer.pad}
    return " ".join(tokenizer.tokenizer.id_to_token(k) for k in ids[:end] if k not in outside)


def _read_pairs(texts: TextSet) -> Iterable[tuple[str, Pair]]:
    from lmcore.diffusion.pairs import PairReader

    for file in texts.files:
        path = Path(os.environ["LMCORE_DATA"], texts.folder, file)
        for number, pair in enumerate(PairReader(path), 1):
            yield f"{file}, pair {number}", pair


def _count_positions(pair: Pair) -> int:
    # Each text between two tokens, and one between both.
    return sum(len(text.split()) + 2 for text in pair) + 1


def _group_tests(pairs: Iterable[tuple[str, Pair]]) -> dict[str, Question]:
    found: dict[str, Question] = {}
    for place, (source, target) in pairs:
        digest = hashlib.blake2b(source.encode(), digest_size=8).digest()
        if int.from_bytes(digest) % _TEST_SHARE == 0:
            one = found.get(source, Question(place, source, ()))
            found[source] = one._replace(references=(*one.references, target))
    return found
