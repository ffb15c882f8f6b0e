"""Sentences of domains: what is an entity can be told from the words and the types alone."""

from collections import Counter

import pytest

from lmcore.worlds.ner.domains import (
    NAMES,
    TYPES_PER_DOMAIN,
    WORDS,
    generate_domain_sentences,
    make_domains,
)
from lmcore.worlds.ner.sentences import Sentence


def test_domains_share_no_type() -> None:
    for seed in range(5):
        domains = make_domains(seed)
        types = Counter(kind for domain in domains for kind in domain.types)
        assert len(types) == TYPES_PER_DOMAIN * len(domains) == 36
        assert set(types.values()) == {1}
    assert make_domains(0) == make_domains(0) != make_domains(1)


def test_a_sentence_depends_on_its_own_number() -> None:
    domains = make_domains(0)
    some = generate_domain_sentences(domains, 40, 3)
    assert generate_domain_sentences(domains, 90, 3)[:40] == some
    assert generate_domain_sentences(domains, 40, 4) != some
    assert generate_domain_sentences(domains, 40, 3, part=1) != some
    assert [sentence.dataset for sentence in some[:10]] == [
        f"domain-{index % 9}" for index in range(10)
    ]


def label(sentence: Sentence) -> list[str]:
    """The labels by the rule of the world: names beside the word of a type that is asked for."""
    words, types = sentence.words, sentence.label_list
    labels = ["O"] * len(words)
    for index, word in enumerate(words):
        if word not in types:
            continue
        first, last = index, index + 1
        while first > 0 and words[first - 1] in NAMES:
            first -= 1
        if first == index:  # names behind it, without it
            first = last
            while last < len(words) and words[last] in NAMES:
                last += 1
        for at in range(first, last):
            labels[at] = f"{'B' if at == first else 'I'}-{word}"
    return labels


def test_labels_follow_from_words_and_types() -> None:
    sentences = generate_domain_sentences(make_domains(1), 2_000, 5)
    for sentence in sentences:
        assert list(sentence.labels) == label(sentence), sentence
        assert set(sentence.words) <= set(WORDS)
        assert 6 <= len(sentence.words) <= 20
    entities = Counter(sum(x[0] == "B" for x in sentence.labels) for sentence in sentences)
    assert set(entities) == {0, 1, 2, 3}
    # Names with the word of a type that is not asked for are no entities, and there are many.
    names = sum(word in NAMES for sentence in sentences for word in sentence.words)
    named = sum(
        word in NAMES and label != "O"
        for sentence in sentences
        for word, label in zip(sentence.words, sentence.labels, strict=True)
    )
    assert 0.6 < named / names < 0.9


@pytest.mark.parametrize(
    ("count", "part", "message"),
    [(-1, 0, "count must be at least 0: got -1"), (1, -1, "part must be at least 0: got -1")],
)
def test_bad_numbers(count: int, part: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate_domain_sentences(make_domains(0), count, 0, part=part)
    with pytest.raises(ValueError, match="domains must hold at least one: got none"):
        generate_domain_sentences([], 1, 0)
