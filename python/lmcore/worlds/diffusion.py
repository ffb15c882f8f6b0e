"""Paraphrases whose good answers are all known: a sentence, and it said again in other words.

A source tells who did what to what, and where or when. Its paraphrase turns it into the passive,
with a synonym for each word that has one, and the place or the time stands at the end, at the
beginning, or behind the verb: three good answers, each as likely. Nothing in a target is free but
that order, so that what a model has learned is the share of its answers that are good.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from lmcore.worlds.draws import Draws, read_draws

_STREAM = 185  # of the choices of a pair
# In every pair either word is a synonym of the other.
_PERSONS = (
    "baker/breadmaker,teacher/tutor,doctor/physician,singer/vocalist,farmer/grower,writer/author,"
    "guard/watchman,child/kid,driver/chauffeur,painter/artist,tailor/dressmaker,captain/skipper,"
    "judge/magistrate,sailor/seaman,thief/robber,hunter/huntsman"
)
_THINGS = (
    "stone/rock,boat/ship,picture/image,lamp/light,letter/note,garden/yard,coat/jacket,road/street,"
    "house/home,box/crate,rope/cord,cup/mug,gift/present,fence/hedge,bag/sack,tale/story,"
    "engine/motor,rug/carpet,tool/device,coin/penny"
)
_VERBS = (
    "built/constructed,repaired/mended,found/discovered,bought/purchased,cleaned/washed,"
    "noticed/spotted,carried/transported,ruined/destroyed,hid/concealed,finished/completed,"
    "guarded/protected,chose/selected,moved/shifted,displayed/showed,wanted/desired,"
    "received/accepted"
)
_OF_PERSONS = (
    "clever/smart,sad/unhappy,glad/happy,rich/wealthy,brave/bold,rude/impolite,weary/tired,"
    "famous/renowned"
)
_OF_THINGS = (
    "big/large,small/little,old/aged,quick/fast,quiet/silent,odd/strange,neat/tidy,new/fresh"
)
_WHERE = (
    "in the forest/in the woods,near the shore/near the coast,in the shop/in the store,"
    "at the harbour/at the port,at dawn/at sunrise,at dusk/at sunset,in the autumn/in the fall,"
    "after the storm/after the tempest,before the meal/before the dinner,on the hill/on the mound,"
    "at the market/at the bazaar,by the brook/by the stream"
)


def _split(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [tuple(pair.split("/")) for pair in text.split(",")]
    return tuple((first, second) for first, second in pairs)


_KINDS = {
    "person": _split(_PERSONS),
    "thing": _split(_THINGS),
    "verb": _split(_VERBS),
    "of a person": _split(_OF_PERSONS),
    "of a thing": _split(_OF_THINGS),
    "where": _split(_WHERE),
}


@dataclass(kw_only=True, slots=True, frozen=True)
class Paraphrase:
    """A pair, and every answer that would be as good."""

    source: str
    target: str
    good: tuple[str, str, str]
    """The targets that this source may have; the one that was drawn is one of them."""


@dataclass(kw_only=True, slots=True, frozen=True)
class World:
    """Generated pairs."""

    seed: int
    pairs: tuple[Paraphrase, ...]

    def to_text(self) -> str:
        """Returns the pairs in the form of DiffuSeq's files: an object with `src` and `trg` each.

        Example:
            >>> make_world(0, pairs=1).to_text().startswith('{"src": "the ')
            True
        """
        rows = ({"src": pair.source, "trg": pair.target} for pair in self.pairs)
        return "".join(json.dumps(row) + "\n" for row in rows)


def make_world(seed: int, *, pairs: int = 1000) -> World:
    """Returns a world of paraphrases.

    Args:
        seed: below 2**64.
        pairs: how many.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> world = make_world(1, pairs=2)
        >>> world.pairs[0].target in world.pairs[0].good
        True
    """
    return World(seed=seed, pairs=tuple(generate_pairs(pairs, seed)))


def generate_pairs(count: int, seed: int, *, first: int = 0) -> Iterator[Paraphrase]:
    """Yields pairs; pair i depends on (seed, i) alone.

    Args:
        count: how many.
        seed: below 2**64.
        first: number of the first one.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> (pair,) = generate_pairs(1, 1, first=5)
        >>> pair == list(generate_pairs(6, 1))[5]
        True
    """
    return map(_make_pair, read_draws(seed, _STREAM, count, first=first))


def list_tokens() -> list[str]:
    """Returns a vocabulary for all pairs, as a file of BERT's kind has it: a token in each line.

    Example:
        >>> list_tokens()[:5]
        ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'the']
    """
    known = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "was", "by"])
    for kind in _KINDS.values():
        for pair in kind:
            known |= dict.fromkeys(" ".join(pair).split())
    return list(known)


def _make_pair(draws: Draws) -> Paraphrase:
    def draw(kind: str) -> tuple[str, str]:
        first, second = draws.pick(_KINDS[kind])
        return (first, second) if draws.pick((True, False)) else (second, first)

    names = ("of a person", "person", "verb", "of a thing", "thing", "where")
    said, again = zip(*map(draw, names), strict=True)
    source = "the {} {} {} the {} {} {}".format(*said)
    how, who, did, what, thing, where = again
    subject, agent = f"the {what} {thing} was", f"by the {how} {who}"
    good = (
        f"{subject} {did} {agent} {where}",
        f"{where} {subject} {did} {agent}",
        f"{subject} {did} {where} {agent}",
    )
    return Paraphrase(source=source, target=draws.pick(good), good=good)
