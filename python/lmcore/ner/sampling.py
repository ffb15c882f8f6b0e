"""How many sentences of each data set are taken."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lmcore.ner.sentences import Sentence
from lmcore.ops.philox import Stream, random_bits

SAMPLINGS = ("random", "first")
_DRAWS_AT_ONCE = 4096


@dataclass(kw_only=True, slots=True, frozen=True)
class SampleConfig:
    """Which sentences are taken.

    Raises:
        ValueError: a value is outside of its range.

    Example:
        >>> SampleConfig(cap=0)
        Traceback (most recent call last):
        ValueError: cap must be at least 1, or None: got 0
    """

    cap: int | None = 10_000
    """Most sentences of a data set, None for all of them; 10,000 in the paper."""
    sampling: str = "random"
    """`random`, each sentence as likely as the others; or `first`, as the authors do."""
    over_sample: bool = False
    """Repeat the sentences of a data set that has fewer than the cap until there are as many;
    with `first`, in whole copies, as the authors do, so that there may be more."""
    seed: int = 0
    """Of the choice, below 2**64."""

    def __post_init__(self) -> None:
        """Raises ValueError if a value is outside of its range."""
        if self.cap is not None and self.cap < 1:
            raise ValueError(f"cap must be at least 1, or None: got {self.cap}")
        if self.sampling not in SAMPLINGS:
            raise ValueError(
                f"sampling must be one of {', '.join(SAMPLINGS)}: got {self.sampling!r:.60}"
            )
        if self.over_sample and self.cap is None:
            raise ValueError("over_sample goes with a cap: got None")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed must be at least 0 and below 2**64: got {self.seed}")


class Sampler:
    """The sentences that are taken of one input, in its order, copies behind each data set.

    At most `cap` sentences of a data set are held at a time, and none where nothing is drawn or
    repeated. Sentence i of all inputs has a draw of its own, so that the choice depends on the
    seed and the input alone.

    Args:
        config: which.

    Example:
        >>> sentences = [Sentence([word], ["O"], ["x"]) for word in "abcdef"]
        >>> sampler = Sampler(SampleConfig(cap=3, sampling="first"))
        >>> [sentence.words[0] for sentence in sampler.sample(sentences)]
        ['a', 'b', 'c']
        >>> sampler.read, sampler.taken
        (Counter({'': 6}), Counter({'': 3}))
    """

    def __init__(self, config: SampleConfig) -> None:
        self.config = config
        self.read: Counter[str] = Counter()
        """Sentences by data set."""
        self.taken: Counter[str] = Counter()
        """How many of them were taken, with copies."""
        self._number = 0
        self._draws: Iterator[int] = iter(())

    def sample(self, sentences: Iterable[Sentence]) -> Iterator[Sentence]:
        """Yields the sentences of an input that are taken.

        Args:
            sentences: all of them.
        """
        config = self.config
        if config.cap is None:
            chosen = self._count(sentences)
        elif config.sampling == "first" and not config.over_sample:
            chosen = self._first(sentences, config.cap)
        else:
            chosen = self._held(sentences, config.cap)
        for sentence in chosen:
            self.taken[sentence.dataset] += 1
            yield sentence

    def _count(self, sentences: Iterable[Sentence]) -> Iterator[Sentence]:
        for sentence in sentences:
            self.read[sentence.dataset] += 1
            yield sentence

    def _first(self, sentences: Iterable[Sentence], cap: int) -> Iterator[Sentence]:
        own: Counter[str] = Counter()
        for sentence in self._count(sentences):
            own[sentence.dataset] += 1
            if own[sentence.dataset] <= cap:
                yield sentence

    def _held(self, sentences: Iterable[Sentence], cap: int) -> Iterator[Sentence]:
        """The sentences with the least draws of each data set, and copies of small ones."""
        held: dict[str, list[tuple[int, int, Sentence]]] = {}
        is_random = self.config.sampling == "random"
        for number, sentence in enumerate(self._count(sentences)):
            # The greatest draw lies at the top of a heap of negative ones.
            draw = -self._draw() if is_random else -number
            heap = held.setdefault(sentence.dataset, [])
            if len(heap) < cap:
                heapq.heappush(heap, (draw, number, sentence))
            elif draw > heap[0][0]:
                heapq.heapreplace(heap, (draw, number, sentence))
        kept = [entry for heap in held.values() for entry in heap]
        kept.sort(key=lambda entry: entry[1])
        yield from (sentence for _, _, sentence in kept)
        if self.config.over_sample:
            for heap in held.values():
                yield from self._copies(heap, cap, is_exact=is_random)

    def _copies(
        self, heap: list[tuple[int, int, Sentence]], cap: int, *, is_exact: bool
    ) -> Iterator[Sentence]:
        """What a data set of fewer sentences than the cap lacks."""
        missing = cap - len(heap)
        in_order = sorted(heap, key=lambda entry: entry[1])
        while missing >= len(heap) or (missing > 0 and not is_exact):
            yield from (sentence for _, _, sentence in in_order)
            missing -= len(heap)
        if missing > 0:
            rest = sorted(heapq.nlargest(missing, heap), key=lambda entry: entry[1])
            yield from (sentence for _, _, sentence in rest)

    def _draw(self) -> int:
        draw = next(self._draws, None)
        if draw is None:
            items = range(self._number, self._number + _DRAWS_AT_ONCE)
            stream = Stream.SENTENCE_CHOICES
            self._draws = iter(random_bits(self.config.seed, stream, items, 1)[:, 0].tolist())
            self._number += _DRAWS_AT_ONCE
            draw = next(self._draws)
        return draw
