"""Choices of which generated text is composed, and what each of them costs.

A choice takes the next draws of an item and returns a text. Draws are a function of (seed, stream,
item, position), so item i of a world depends on (seed, i) alone. They add up the negative
logarithm of the probability of what was chosen: the nats that a model loses on the text that knows
how it is made.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from lmcore.ops.philox import random_uniform

ITEMS_AT_ONCE = 4096
DRAWS_AT_ONCE = 96

_T = TypeVar("_T")


class Draws:
    """The uniform draws of one item, handed out in order.

    Args:
        seed: below 2**64.
        stream: what the draws are for.
        item: whose draws.
        first: those from position 0 on, where they were made for many items at once.

    Example:
        >>> draws = Draws(0, 1, item=5)
        >>> draws.pick("ab") in "ab", round(draws.surprisal, 3)
        (True, 0.693)
    """

    def __init__(self, seed: int, stream: int, item: int, first: Sequence[float] = ()) -> None:
        self._uniforms = self._read(seed, stream, item, first)
        self.surprisal = 0.0
        """Nats of all choices so far; a draw that is no choice, as of `uniform`, adds none."""

    @staticmethod
    def _read(seed: int, stream: int, item: int, first: Sequence[float]) -> Iterator[float]:
        yield from first
        position = len(first)
        while True:
            more = random_uniform(seed, stream, item, DRAWS_AT_ONCE, position=position)
            yield from more.tolist()
            position += DRAWS_AT_ONCE

    def uniform(self) -> float:
        """Returns the next draw, in [0, 1)."""
        return next(self._uniforms)

    def pick(self, options: Sequence[_T]) -> _T:
        """Returns one of the options, each as likely.

        Args:
            options: at least one.
        """
        self.surprisal += math.log(len(options))
        return take(options, next(self._uniforms))


Choice = Callable[[Draws], str]
"""What takes the next draws and returns a text."""


def read_draws(seed: int, stream: int, count: int, *, first: int = 0) -> Iterator[Draws]:
    """Yields the draws of items first to first + count - 1; many are made at once.

    Args:
        seed: below 2**64.
        stream: what the draws are for.
        count: number of items.
        first: the first of them.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> [draws.pick("abc") for draws in read_draws(0, 1, 4)][2] == Draws(0, 1, 2).pick("abc")
        True
    """
    for start in range(first, first + count, ITEMS_AT_ONCE):
        items = range(start, min(start + ITEMS_AT_ONCE, first + count))
        rows = random_uniform(seed, stream, list(items), DRAWS_AT_ONCE).tolist()
        for item, row in zip(items, rows, strict=True):
            yield Draws(seed, stream, item, row)


def take(options: Sequence[_T], draw: float) -> _T:
    """Returns the option that a draw stands for, each as likely.

    Args:
        options: at least one.
        draw: in [0, 1).

    Example:
        >>> take("abcd", 0.5)
        'c'
    """
    return options[int(draw * len(options))]


def choose(options: Sequence[str]) -> Choice:
    """Returns the choice of one of the options, each as likely; one that stands twice counts twice.

    Args:
        options: at least one.
    """
    return lambda draws: draws.pick(options)


def among(words: str) -> Choice:
    """Returns the choice of one of the words of a text.

    Args:
        words: with white space between them.
    """
    return choose(words.split())


def number(least: int, most: int) -> Choice:
    """Returns the choice of a whole number.

    Args:
        least: the least.
        most: the most.
    """
    return lambda draws: str(draws.pick(range(least, most + 1)))


def combine(*choices: Choice) -> Choice:
    """Returns the choice of several texts that become one word.

    Args:
        choices: one after the other.
    """
    return lambda draws: "".join(choice(draws) for choice in choices)


def phrase(*choices: Choice) -> Choice:
    """Returns the choice of several texts with spaces between them.

    Args:
        choices: one after the other.
    """
    return lambda draws: " ".join(choice(draws) for choice in choices)


def mixture(*weighted: tuple[float, Choice]) -> Choice:
    """Returns a choice among choices.

    Args:
        weighted: each with its probability.

    Raises:
        ValueError: the probabilities do not add up to 1, or one is not positive.

    Example:
        >>> common = mixture((0.75, choose(["the"])), (0.25, among("a an")))
        >>> draws = Draws(0, 1, item=0)
        >>> common(draws), round(math.exp(-draws.surprisal), 3)
        ('the', 0.75)
    """
    weights = [weight for weight, _ in weighted]
    if not weights or min(weights) <= 0 or not math.isclose(sum(weights), 1.0):
        raise ValueError(f"probabilities must be positive and add up to 1: got {weights}")

    def draw(draws: Draws) -> str:
        left, k = draws.uniform(), 0
        while k < len(weights) - 1 and left >= weights[k]:
            left -= weights[k]
            k += 1
        draws.surprisal -= math.log(weights[k])
        return weighted[k][1](draws)

    return draw
