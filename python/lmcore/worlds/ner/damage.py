"""Damage that models do to words which they should copy, planted in correct generations."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lmcore.ops.philox import Stream, random_uniform
from lmcore.worlds.draws import ITEMS_AT_ONCE, take
from lmcore.worlds.ner.sentences import Sentence
from lmcore.worlds.ner.words import common_words

# A word's damage takes four draws: whether, which kind, which form, which detail.
_DRAWS_PER_WORD = 4


@dataclass(kw_only=True, slots=True, frozen=True)
class DamageMix:
    """Shares of the three kinds of damage; they add up to 1."""

    omission: float
    addition: float
    substitution: float

    def __post_init__(self) -> None:
        """Raises ValueError if a share is negative or their sum is not 1."""
        shares = (self.omission, self.addition, self.substitution)
        if min(shares) < 0 or not math.isclose(sum(shares), 1.0):
            raise ValueError(f"shares must be at least 0 and add up to 1: got {shares}")


LLAMA_MIX = DamageMix(omission=0.39, addition=0.03, substitution=0.58)
"""Mismatches in long outputs of LLaMA-7B (GNER, arXiv 2402.16602)."""

T5_MIX = DamageMix(omission=0.23, addition=0.02, substitution=0.75)
"""Mismatches in long outputs of Flan-T5 (GNER, arXiv 2402.16602)."""


class WrittenWord(NamedTuple):
    """One pair of a generation."""

    word: str
    """The text before the label; it holds a space if the word was split."""
    label: str
    """The BIO label."""
    origin: int
    """Index of the input word that this stands for, or -1 if it was added."""
    damage: str
    """Empty, `addition` or `substitution`; what was omitted is not written."""


def write_generation(words: Sequence[str], labels: Sequence[str]) -> str:
    """Returns `word_1(label_1) word_2(label_2) ...`, the text that GNER is trained to write.

    Source: GNER (arXiv 2402.16602), its output format.

    Args:
        words: n words.
        labels: n BIO labels; one that holds `)` cannot be read back.

    Raises:
        ValueError: the lengths differ.

    Example:
        >>> write_generation(["New", "York", "!"], ["B-city", "I-city", "O"])
        'New(B-city) York(I-city) !(O)'
    """
    if len(words) != len(labels):
        raise ValueError(
            f"labels must have the same length as words: got {len(labels)} and {len(words)}"
        )
    return " ".join(f"{word}({label})" for word, label in zip(words, labels, strict=True))


def corrupt_sentences(
    sentences: Sequence[Sentence], rate: float, mix: DamageMix, seed: int
) -> list[list[WrittenWord]]:
    """Returns what a model that damages words would write for each sentence.

    Each word is hit with probability `rate`, independently of the others, and the kind of
    damage is drawn from `mix`:

    - omission: neither the word nor its label is written.
    - addition: the word is written, then one more: with probability 1/2 the same word and
      label again, else a common word of the language labelled `O`.
    - substitution: another text stands in the word's place and keeps its label. Of the forms
      that apply to the word one is drawn, each as likely: one character is lost (words of 2
      and more); a space splits it (4 and more); its accents are lost (where there are any);
      characters outside ASCII vanish, as unknown ones do (where some but not all are); it
      becomes a common word of the language (always). A single Chinese character can
      therefore only become another word. The new text is never equal to the old one, not
      even in lower case.

    With the same seed the words hit at a lower rate are among those hit at a higher one, in
    the same way, so that rates and mixes are compared on the same draws.

    Args:
        sentences: sentence i takes the draws of item i.
        rate: probability in [0, 1].
        mix: shares of the kinds.
        seed: below 2**64.

    Raises:
        ValueError: a rate or seed out of range.

    Example:
        >>> from lmcore.worlds.ner.sentences import generate_sentences
        >>> sentences = generate_sentences("en", count=1, seed=0)
        >>> written = corrupt_sentences(sentences, rate=0.0, mix=T5_MIX, seed=0)[0]
        >>> tuple(word.word for word in written) == sentences[0].words
        True
    """
    return [
        written
        for start in range(0, len(sentences), ITEMS_AT_ONCE)
        for written in _corrupt(
            sentences[start : start + ITEMS_AT_ONCE], rate, mix, seed, first_item=start
        )
    ]


def corrupt_generation(
    sentence: Sentence, rate: float, mix: DamageMix, seed: int, item: int
) -> str:
    """Returns one sentence's generation with damaged words, as `corrupt_sentences` makes it.

    Args:
        sentence: what should have been written.
        rate: probability in [0, 1] that a word is hit.
        mix: shares of the kinds of damage.
        seed: below 2**64.
        item: whose draws to take; the sentence's index in its corpus.

    Raises:
        ValueError: a rate, seed or item out of range.

    Example:
        >>> sentence = Sentence("d", ("Bo", "ran"), ("B-person", "O"), ("person",))
        >>> omission = DamageMix(omission=1.0, addition=0.0, substitution=0.0)
        >>> corrupt_generation(sentence, rate=0.0, mix=omission, seed=0, item=0)
        'Bo(B-person) ran(O)'
        >>> corrupt_generation(sentence, rate=1.0, mix=omission, seed=0, item=0)
        ''
    """
    return join_written(_corrupt([sentence], rate, mix, seed, first_item=item)[0])


def join_written(written: Sequence[WrittenWord]) -> str:
    """Returns the text of a generation.

    Args:
        written: its pairs.

    Example:
        >>> join_written([WrittenWord("Bo", "B-person", 0, "")])
        'Bo(B-person)'
    """
    return write_generation([w.word for w in written], [w.label for w in written])


def _corrupt(
    sentences: Sequence[Sentence], rate: float, mix: DamageMix, seed: int, first_item: int
) -> list[list[WrittenWord]]:
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate must be in [0, 1]: got {rate}")
    longest = max((len(sentence.words) for sentence in sentences), default=0)
    items = [first_item + i for i in range(len(sentences))]
    rows = random_uniform(seed, Stream.DAMAGE, items, _DRAWS_PER_WORD * longest)
    return [
        _corrupt_words(sentence, rate, mix, row)
        for sentence, row in zip(sentences, rows.tolist(), strict=True)
    ]


def _corrupt_words(
    sentence: Sentence, rate: float, mix: DamageMix, draws: Sequence[float]
) -> list[WrittenWord]:
    fillers = common_words(sentence.dataset)
    written = []
    for i, (word, label) in enumerate(zip(sentence.words, sentence.labels, strict=True)):
        hit, kind, form, detail = draws[_DRAWS_PER_WORD * i : _DRAWS_PER_WORD * (i + 1)]
        if hit >= rate:
            written.append(WrittenWord(word, label, i, ""))
        elif kind < mix.substitution:
            written.append(
                WrittenWord(_substitute(word, fillers, form, detail), label, i, "substitution")
            )
        elif kind < mix.substitution + mix.addition:
            written.append(WrittenWord(word, label, i, ""))
            extra = (word, label) if form < 0.5 else (take(fillers, detail), "O")
            written.append(WrittenWord(*extra, -1, "addition"))
    return written


def _substitute(word: str, fillers: Sequence[str], form: float, detail: float) -> str:
    letters = (c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    unaccented = unicodedata.normalize("NFC", "".join(letters))
    known = "".join(c for c in word if c.isascii())
    place = int(detail * len(word))
    cut = 1 + int(detail * (len(word) - 1))
    candidates = [take([w for w in fillers if w.lower() != word.lower()], detail)]
    if len(word) >= 2:
        candidates.append(word[:place] + word[place + 1 :])
    if len(word) >= 4:
        candidates.append(word[:cut] + " " + word[cut:])
    if unaccented != word:
        candidates.append(unaccented)
    if 0 < len(known) < len(word):
        candidates.append(known)
    return take(candidates, form)
