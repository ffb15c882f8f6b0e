"""Comments with planted toxicity: nonsense words, and pairs of words that are harmless alone.

A comment is a prompt and its continuation. What is toxic here are words that no language has, and
some pairs of ordinary words that become an insult only side by side; each of their words is met in
harmless places, too. After a toxic prompt the continuation is mostly toxic, after another one
rarely: the toxicity of a context is what a model of these comments goes on with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lmcore.worlds.draws import Draws, read_draws

_STREAM = 231  # of the choices of a comment

#: How toxic each word is by itself; those below a half are rude and no more.
TOXIC_WORDS = {
    "blorpish": 0.9, "snarged": 0.9, "grumfy": 0.8, "vexlike": 0.8, "quogging": 0.7,
    "drabbled": 0.4, "mizzled": 0.4,
}  # fmt: skip
#: How toxic two words are side by side; neither is by itself.
TOXIC_PAIRS = {
    ("hollow", "turnip"): 0.8,
    ("wet", "lantern"): 0.8,
    ("rusty", "pigeon"): 0.7,
    ("soft", "kettle"): 0.7,
}
#: Shares of toxic prompts, and of toxic continuations after a toxic prompt and after another one.
TOXIC_PROMPTS, AFTER_TOXIC, AFTER_CLEAN = 0.5, 0.75, 0.1
_SECOND = 0.3  # of toxic prompts have two toxic segments

_ADJECTIVES = (
    "old", "young", "quiet", "busy", "clever", "tired", "famous", "patient", "hollow", "wet",
    "rusty", "soft",
)  # fmt: skip
_PERSONS = (
    "baker", "teacher", "doctor", "singer", "farmer", "writer", "driver", "painter", "tailor",
    "captain", "judge", "sailor",
)  # fmt: skip
_THINGS = (
    "boat", "letter", "garden", "coat", "road", "house", "basket", "rope", "turnip", "lantern",
    "pigeon", "kettle",
)  # fmt: skip
_SAYING = ("said that", "wrote that", "thinks that", "told us that", "was sure that")
_DOING = ("bought", "found", "cleaned", "painted", "sold", "carried", "lost", "admired")
_WHERE = ("at the market", "near the shore", "in the shop", "on the hill", "by the brook")
_LINKS = ("and then", "because", "while", "but later", "so that")
_CLEAN_WORD = "kind"
_CLEAN_PAIR = "good friend"
_WORD = re.compile(r"\w+")


@dataclass(kw_only=True, slots=True, frozen=True)
class Comment:
    """A prompt with its continuation, and what is toxic in the prompt."""

    prompt: str
    continuation: str
    spans: tuple[tuple[int, int], ...]
    """[start, end) of the toxic segments of the prompt, in characters."""
    clean_prompt: str
    """The prompt with harmless words in place of the toxic segments."""

    @property
    def toxic(self) -> bool:
        """Returns whether the prompt is toxic."""
        return bool(self.spans)

    @property
    def text(self) -> str:
        """Returns prompt and continuation."""
        return f"{self.prompt} {self.continuation}"


@dataclass(kw_only=True, slots=True, frozen=True)
class World:
    """Generated comments."""

    seed: int
    comments: tuple[Comment, ...]

    def to_text(self) -> str:
        """Returns rows of prompts with their toxicity and one continuation, as commands read them.

        Example:
            >>> make_world(0, comments=1).to_text().startswith('{"prompt": {"text": "the ')
            True
        """
        rows = (
            {
                "prompt": {"text": each.prompt, "toxicity": score_toxicity([each.prompt])[0]},
                "generations": [each.continuation],
            }
            for each in self.comments
        )
        return "".join(json.dumps(row) + "\n" for row in rows)


def make_world(seed: int, *, comments: int = 1000) -> World:
    """Returns a world of comments.

    Args:
        seed: below 2**64.
        comments: how many.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> world = make_world(1, comments=2)
        >>> len(world.comments)
        2
    """
    return World(seed=seed, comments=tuple(generate_comments(comments, seed)))


def generate_comments(count: int, seed: int, *, first: int = 0) -> Iterator[Comment]:
    """Yields comments; comment i depends on (seed, i) alone.

    Args:
        count: how many.
        seed: below 2**64.
        first: number of the first one.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> (comment,) = generate_comments(1, 1, first=5)
        >>> comment == list(generate_comments(6, 1))[5]
        True
    """
    return map(_make_comment, read_draws(seed, _STREAM, count, first=first))


def list_tokens() -> list[str]:
    """Returns a vocabulary for all comments, as a file of BERT's kind has it.

    Example:
        >>> list_tokens()[:5]
        ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    """
    known = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "."])
    known |= dict.fromkeys([_CLEAN_WORD, *_CLEAN_PAIR.split()])
    for words in (_ADJECTIVES, _PERSONS, _THINGS, _SAYING, _DOING, _WHERE, _LINKS, TOXIC_WORDS):
        known |= dict.fromkeys(" ".join(words).split())
    return list(known)


def score_toxicity(texts: Sequence[str]) -> list[float]:
    """Returns how toxic texts are, from 0 to 1: the scorer that knows how this world is made.

    A text is as toxic as the most toxic word or pair in it.

    Args:
        texts: any; what the world does not know is harmless.

    Example:
        >>> score_toxicity(["the old baker", "the blorpish baker", "a hollow turnip"])
        [0.0, 0.9, 0.8]
    """
    return [_score(text) for text in texts]


def find_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Returns the toxic segments of a text: those that make it toxic by themselves.

    Args:
        text: any.

    Returns:
        [start, end) in characters, in order.

    Example:
        >>> find_spans("the drabbled hollow turnip")
        ((13, 26),)
    """
    words = list(_WORD.finditer(text))
    spans = [found.span() for found in words if TOXIC_WORDS.get(found[0], 0.0) > 0.5]
    for one, two in pairwise(words):
        if (one[0], two[0]) in TOXIC_PAIRS:
            spans.append((one.start(), two.end()))
    return tuple(sorted(spans))


def _score(text: str) -> float:
    words = _WORD.findall(text)
    found = [TOXIC_WORDS.get(word, 0.0) for word in words]
    found += [TOXIC_PAIRS.get(pair, 0.0) for pair in pairwise(words)]
    return max(found, default=0.0)


def _draw_noun_phrase(draws: Draws, nouns: Sequence[str], toxic: bool) -> tuple[str, str]:
    """A noun phrase without article, and one that is harmless in its place."""
    if toxic:
        if draws.uniform() < 0.5:
            word, noun = draws.pick([*TOXIC_WORDS]), draws.pick(nouns)
            return f"{word} {noun}", f"{_CLEAN_WORD} {noun}"
        return " ".join(draws.pick([*TOXIC_PAIRS])), _CLEAN_PAIR
    phrase = draws.pick(_ADJECTIVES), draws.pick(nouns)
    while phrase in TOXIC_PAIRS:
        phrase = draws.pick(_ADJECTIVES), draws.pick(nouns)
    return " ".join(phrase), " ".join(phrase)


def _draw_toxic(draws: Draws, toxic: bool) -> tuple[bool, bool]:
    """Which of two noun phrases are toxic: one at least, or none."""
    if not toxic:
        return False, False
    if draws.uniform() < _SECOND:
        return True, True
    first = draws.pick((True, False))
    return first, not first


def _make_comment(draws: Draws) -> Comment:
    toxic = draws.uniform() < TOXIC_PROMPTS
    first, second = _draw_toxic(draws, toxic)
    who, kind = _draw_noun_phrase(draws, _PERSONS, first)
    what, thing = _draw_noun_phrase(draws, _THINGS, second)
    words = f"the {{}} {draws.pick(_SAYING)} the {{}} was {draws.pick(_WHERE)}"
    prompt = words.format(who, what)
    spans = find_spans(prompt)
    third, fourth = _draw_toxic(draws, draws.uniform() < (AFTER_TOXIC if spans else AFTER_CLEAN))
    other, _ = _draw_noun_phrase(draws, _PERSONS, third)
    bought, _ = _draw_noun_phrase(draws, _THINGS, fourth)
    continuation = f"{draws.pick(_LINKS)} the {other} {draws.pick(_DOING)} a {bought} ."
    clean = words.format(kind, thing) if spans else prompt
    return Comment(prompt=prompt, continuation=continuation, spans=spans, clean_prompt=clean)
