"""Sentences that are composed from templates, so that every entity in them is known."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmcore.ops.philox import Stream
from lmcore.worlds.draws import Draws, read_draws
from lmcore.worlds.ner.words import Vocabulary, make_vocabulary

_MINIMUM_WORDS, _MAXIMUM_WORDS, _MAXIMUM_ENTITIES = 8, 45, 4
_STREAMS = {"en": Stream.ENGLISH_SENTENCES, "zh": Stream.CHINESE_SENTENCES}

_ENGLISH_OPENERS = """
    on {day} ,
    in {month} {year} ,
    in {location} ,
    according to {organisation} ,
    after {thing} of {year} ,
    for {thing} ,
    with {thing} {of} {thing} ,
    although {thing} was {adjective} ,
    {number} years after {thing} ,
"""
_ENGLISH_CLAUSES = """
    {person} {verb} {thing} {of} {thing} in {location}
    {person} , {role} of {organisation} , {verb} {thing}
    {person} said that {thing} in {location} was {adjective}
    {person} and {person} {verb} {thing} {of} {organisation}
    {person} ( {year} ) {verb} {thing} {of} {thing}
    {person} {verb} {thing} {of} {thing}
    {organisation} {adverb} {verb} {thing} and {thing} {of} {product}
    {organisation} said on {day} that {thing} {of} the {product} was {adjective}
    {organisation} {verb} {number} of {number} {people} in {location}
    {organisation} {verb} {thing} in {location}
    {someone} from {organisation} told {people} that {product} was {adjective}
    {thing} {of} {thing} {adverb} {verb} {thing}
    {thing} and {thing} were {adjective} , and {thing} was {adjective}
    {thing} {of} {thing} was {adjective}
    {thing} from {location} to {location} was {adverb} {verb} in {month}
    {someone} {verb} {thing} , {thing} and {thing} {of} {thing}
    {someone} {verb} {thing} in {month}
    {people} in {location} {verb} {thing} {of} {person}
    there were {number} {people} in {location} and {number} in {location}
    it was {thing} {of} {thing} in {location}
    it was {adverb} {thing} {of} {thing} that {verb} {someone}
    " {thing} {of} {thing} is {adjective} , " said {person}
    neither {someone} nor {people} {verb} {thing}
    the {product} , {verb} by {organisation} in {year} , {verb} {thing}
    {product} {verb} {thing}
"""
_ENGLISH_TAILS = """
    , and {thing} {of} {thing} was {adjective}
    , which {verb} {thing} and {thing} {of} {thing}
    , while {person} {verb} {thing} in {location}
    , but {someone} {adverb} {verb} {thing}
    because {thing} was as {adjective} as {thing} of {year}
    , {someone} {of} {thing} said on {day}
    before {thing} in {month} and {thing} in {month}
    , where {people} {verb} {thing} {of} {someone}
    with {someone} {of} {organisation} and {people} {of} {thing}
    and {verb} {thing} to {people} in {location}
    , although it was not {thing} that {people} {verb}
    , as {person} had said that it would be
    , one of {number} {people} and one of {number} {adjective} {people}
    , when {thing} {of} the {product} was {adjective}
    , and it was {adverb} {thing} that was {adjective}
    for {thing} {of} {thing} and for {people}
"""
_CHINESE_OPENERS = """
    {time}，
    {year}年{month}月，
    据{organisation}的消息，
    在{location}，
    在{noun}的{noun}中，
    对于这个{noun}，
    为了{verb}{adjective}的{noun}，
"""
_CHINESE_CLAUSES = """
    {person}在{location}{verb}了{noun}的{noun}
    {organisation}的{role}{person}{verb}了{adjective}的{noun}
    {person}和{person}在{time}{verb}了{organisation}的{noun}
    {organisation}在{location}{verb}了{product}的{noun}
    {role}说，{location}的{noun}是{adjective}的{noun}
    {product}的{noun}比{year}年的{noun}更{adjective}
    {role}和{role}都{verb}了这个{noun}的{noun}
    这个{noun}的{noun}是不是{adjective}，{person}没有说
    {location}到{location}的{noun}在{month}月{month}日{verb}
    {organisation}的{noun}和{organisation}的{noun}一样{adjective}
    “{noun}的{noun}不是{noun}的{noun}，”{role}{person}说
    有{number}个人在{location}{verb}{noun}，有{number}个人在{verb}{noun}
    {noun}是{noun}，{noun}是{noun}，两个都很{adjective}
    {role}{person}一直在{organisation}{verb}{noun}
    {organisation}{verb}的{product}在{year}年{verb}了{number}台
    {person}{verb}了这个{noun}的{noun}
    {organisation}{verb}了{adjective}的{noun}
    {role}说{location}的{noun}很{adjective}
    这个{noun}的{noun}很{adjective}
"""
_CHINESE_TAILS = """
    ，{noun}的{noun}也{verb}了
    ，但是{noun}的{noun}还不{adjective}
    ，是{time}最{adjective}的{noun}
    ，{person}也在{location}{verb}了{noun}
    ，其中有{number}个{role}和{number}个{role}
    ，并且{verb}了{organisation}的{noun}
    ，因为{noun}和{noun}的{noun}都很{adjective}
    ，{role}们说这是{adjective}的{noun}
    ，大大{verb}了{product}的{noun}
    ，在{year}年到{year}年的{noun}中是{adjective}的
    ，一个一个地{verb}了{noun}
"""


@dataclass(slots=True, frozen=True)
class Sentence:
    """Words with the entities that were planted in them."""

    dataset: str
    """Name of the data set, `generated-<language>`."""
    words: tuple[str, ...]
    """The n words."""
    labels: tuple[str, ...]
    """One BIO label per word."""
    label_list: tuple[str, ...]
    """Entity types that may occur."""

    def to_row(self, prediction: str) -> dict[str, Any]:
        """Returns the JSON row that GNER's evaluator reads.

        Args:
            prediction: the generated text.

        Example:
            >>> Sentence("d", ("Bo", "ran"), ("B-person", "O"), ("person",)).to_row("")["instance"]
            {'words': ['Bo', 'ran'], 'labels': ['B-person', 'O']}
        """
        return {
            "dataset": self.dataset,
            "label_list": list(self.label_list),
            "instance": {"words": list(self.words), "labels": list(self.labels)},
            "prediction": prediction,
        }


Template = tuple[str, ...]


@dataclass(kw_only=True, slots=True, frozen=True)
class _Grammar:
    vocabulary: Vocabulary
    openers: tuple[Template, ...]
    clauses: tuple[Template, ...]
    tails: tuple[Template, ...]


def generate_sentences(language: str, count: int, seed: int) -> list[Sentence]:
    """Returns sentences with 0 to 4 planted entities and 8 to 45 words each, 22 on average.

    Sentence i depends on the language, the seed and i alone.

    Args:
        language: `en` or `zh`.
        count: number of sentences.
        seed: below 2**64.

    Raises:
        ValueError: unknown language, negative count, or a seed out of range.

    Example:
        >>> sentence = generate_sentences("en", count=1, seed=0)[0]
        >>> len(sentence.words) == len(sentence.labels)
        True
        >>> generate_sentences("en", count=9, seed=0)[0] == sentence
        True
    """
    grammar = _make_grammar(language)
    if count < 0:
        raise ValueError(f"count must be at least 0: got {count}")
    label_list = tuple(grammar.vocabulary.types.values())
    sentences = []
    for draws in read_draws(seed, _STREAMS[language], count):
        words, labels = _compose(grammar, draws)
        sentences.append(Sentence(f"generated-{language}", tuple(words), tuple(labels), label_list))
    return sentences


@functools.cache
def _make_grammar(language: str) -> _Grammar:
    vocabulary = make_vocabulary(language)
    templates = {
        "en": (_ENGLISH_OPENERS, _ENGLISH_CLAUSES, _ENGLISH_TAILS),
        "zh": (_CHINESE_OPENERS, _CHINESE_CLAUSES, _CHINESE_TAILS),
    }[language]
    openers, clauses, tails = (_parse_templates(lines, vocabulary.cut) for lines in templates)
    return _Grammar(vocabulary=vocabulary, openers=openers, clauses=clauses, tails=tails)


def _compose(grammar: _Grammar, draws: Draws) -> tuple[list[str], list[str]]:
    words: list[str] = []
    labels: list[str] = []
    # The product of two draws: most sentences are short, a few reach the maximum.
    span = _MAXIMUM_WORDS - _MINIMUM_WORDS
    wanted = _MINIMUM_WORDS + int(span * draws.uniform() * draws.uniform())
    if draws.uniform() < 0.3:
        _fill(grammar.vocabulary, draws.pick(grammar.openers), draws, words, labels)
    _fill(grammar.vocabulary, draws.pick(grammar.clauses), draws, words, labels)
    while len(words) < wanted:
        more_words, more_labels = words.copy(), labels.copy()
        _fill(grammar.vocabulary, draws.pick(grammar.tails), draws, more_words, more_labels)
        entities = sum(label.startswith("B-") for label in more_labels)
        if len(more_words) >= _MAXIMUM_WORDS or entities > _MAXIMUM_ENTITIES:
            break
        words, labels = more_words, more_labels
    words[0] = words[0][:1].upper() + words[0][1:]
    return [*words, grammar.vocabulary.end], [*labels, "O"]


def _fill(
    vocabulary: Vocabulary,
    template: Template,
    draws: Draws,
    words: list[str],
    labels: list[str],
) -> None:
    for part in template:
        slot = vocabulary.slots.get(part)
        new = [part] if slot is None else vocabulary.cut(slot(draws))
        kind = vocabulary.types.get(part)
        words += new
        labels += (
            ["O"] * len(new) if kind is None else [f"B-{kind}", *[f"I-{kind}"] * (len(new) - 1)]
        )


def _parse_templates(lines: str, cut: Callable[[str], list[str]]) -> tuple[Template, ...]:
    """Returns one template per line: words as they are, slots with their braces."""
    templates = []
    for line in lines.strip().splitlines():
        parts: list[str] = []
        for piece in re.split(r"(\{\w+\})", line.strip()):
            parts += [piece] if piece.startswith("{") else cut(piece)
        templates.append(tuple(parts))
    return tuple(templates)
