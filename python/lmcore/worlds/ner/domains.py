"""Sentences of several domains, each with entity types of its own: for learning and for zero-shot.

A type is named by the word that entities of it carry: `bela coros river` is a `river`, and so is
`bela coros` in `the river bela coros`. So whoever has learned to look for the types that are asked
for finds types that were never seen before. What looks like an entity and is none stands beside
them: names with the word of a type that is not asked for, and the word of a type without a name.
Names are in lower case, as matching compares words.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from lmcore.ops.philox import Stream, random_uniform
from lmcore.worlds.draws import Draws, read_draws
from lmcore.worlds.ner.sentences import Sentence


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_TYPES = _words("""
    river castle bridge harbour forest island temple valley tower canal market garden
    bank college theatre museum hospital factory orchestra council airline brewery newspaper guild
    ship novel engine opera treaty festival comet virus robot satellite cocktail waltz
""")
NAMES = tuple(
    start + end
    for start in ("al", "bel", "cor", "dun", "fal", "gor", "kar", "mir")
    for end in ("a", "en", "ia", "os", "ton")
)
"""Words of names, of all types."""
_ADJECTIVES = _words("old new great small famous northern royal quiet")
_NOUNS = _words("report people story crowd budget winter teacher road price season")
_VERBS = _words("reached left praised bought opened missed described visited")
_LINKS = _words("near behind with without")
_OTHERS = _words("the a this .")

WORDS = (*_TYPES, *NAMES, *_ADJECTIVES, *_NOUNS, *_VERBS, *_LINKS, *_OTHERS)
"""Every word of these sentences."""

TYPES_PER_DOMAIN = 4


@dataclass(kw_only=True, slots=True, frozen=True)
class Domain:
    """A kind of text, and the types of its entities."""

    name: str
    types: tuple[str, ...]


def make_domains(seed: int) -> tuple[Domain, ...]:
    """Returns nine domains that share no type; which types are together depends on the seed.

    Args:
        seed: below 2**64.

    Raises:
        ValueError: a seed out of range.

    Example:
        >>> domains = make_domains(0)
        >>> len(domains), len({kind for domain in domains for kind in domain.types})
        (9, 36)
    """
    draws = random_uniform(seed, Stream.DOMAINS, 0, len(_TYPES)).tolist()
    types = [kind for _, kind in sorted(zip(draws, _TYPES, strict=True))]
    return tuple(
        Domain(name=f"domain-{first // TYPES_PER_DOMAIN}", types=tuple(part))
        for first in range(0, len(types), TYPES_PER_DOMAIN)
        for part in [types[first : first + TYPES_PER_DOMAIN]]
    )


def generate_domain_sentences(
    domains: Sequence[Domain], count: int, seed: int, *, part: int = 0
) -> list[Sentence]:
    """Returns sentences of the domains in turn, with 0 to 3 entities and 6 to 18 words each.

    Sentence i depends on the domains, the seed, the part and i alone.

    Args:
        domains: at least one.
        count: number of sentences.
        seed: below 2**64.
        part: of the data, from 0: sentences of different parts are drawn apart.

    Raises:
        ValueError: no domains, a negative count or part, or a seed out of range.

    Example:
        >>> sentence = generate_domain_sentences(make_domains(0), 1, seed=0)[0]
        >>> len(sentence.words) == len(sentence.labels), sentence.dataset
        (True, 'domain-0')
    """
    if not domains:
        raise ValueError("domains must hold at least one: got none")
    for name, value in (("count", count), ("part", part)):
        if value < 0:
            raise ValueError(f"{name} must be at least 0: got {value}")
    sentences = []
    first = part << 32
    for index, draws in enumerate(read_draws(seed, Stream.DOMAIN_SENTENCES, count, first=first)):
        domain = domains[index % len(domains)]
        words, labels = _compose(domain, draws)
        sentences.append(Sentence(domain.name, tuple(words), tuple(labels), domain.types))
    return sentences


def _compose(domain: Domain, draws: Draws) -> tuple[list[str], list[str]]:
    words: list[str] = []
    labels: list[str] = []

    def say(*more: str, kind: str | None = None) -> None:
        words.extend(more)
        if kind is None:
            labels.extend(["O"] * len(more))
        else:
            labels.extend([f"B-{kind}", *[f"I-{kind}"] * (len(more) - 1)])

    def mention() -> None:
        say(draws.pick(("the", "a", "this")))
        if draws.uniform() < 0.4:
            say(draws.pick(_ADJECTIVES))
        chance = draws.uniform()
        if chance < 0.25:
            say(draws.pick(_NOUNS))
            return
        asked = draws.uniform() < 0.75
        kind = draws.pick(domain.types if asked else _other_types(domain))
        names = [draws.pick(NAMES) for _ in range(1 + (draws.uniform() < 0.5))]
        found = kind if asked else None
        if chance < 0.4:  # no name, no entity
            say(kind)
        elif chance < 0.75:
            say(*names, kind, kind=found)
        else:
            say(kind)
            say(*names, kind=found)

    mention()
    say(draws.pick(_VERBS))
    mention()
    if draws.uniform() < 0.3:
        say(draws.pick(_LINKS))
        mention()
    say(".")
    return words, labels


@functools.cache
def _other_types(domain: Domain) -> tuple[str, ...]:
    return tuple(kind for kind in _TYPES if kind not in domain.types)
