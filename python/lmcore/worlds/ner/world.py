"""A corpus with planted entities, and generations in which known words are damaged."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmcore.worlds.ner.damage import (
    LLAMA_MIX,
    DamageMix,
    WrittenWord,
    corrupt_sentences,
    join_written,
)
from lmcore.worlds.ner.sentences import Sentence, generate_sentences


@dataclass(kw_only=True, slots=True, frozen=True)
class World:
    """Sentences, and what a model that damages words writes for each."""

    sentences: Sequence[Sentence]
    """With the entities that were planted in them."""
    written: Sequence[Sequence[WrittenWord]]
    """The pairs of each generation, with what was done to them."""

    @property
    def generations(self) -> list[str]:
        """The generated texts."""
        return [join_written(written) for written in self.written]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows as GNER's evaluator and `lmcore.ner.score` read them."""
        pairs = zip(self.sentences, self.generations, strict=True)
        return [sentence.to_row(generation) for sentence, generation in pairs]

    def true_labels(self, item: int) -> list[str]:
        """Returns the labels that an alignment which knows the damage finds, one per word.

        Each undamaged generated word gives its label to the word that it stands for; all other
        words are `O`.

        Args:
            item: index of the sentence.

        Raises:
            IndexError: there is no such sentence.

        Example:
            >>> world = make_world(seed=0, sentences=3, rate=0.0)
            >>> world.true_labels(2) == list(world.sentences[2].labels)
            True
        """
        labels = ["O"] * len(self.sentences[item].words)
        for word in self.written[item]:
            if word.origin >= 0 and not word.damage:
                labels[word.origin] = word.label
        return labels

    def to_text(self) -> str:
        """Returns the rows as a JSONL file of predictions.

        Example:
            >>> world = make_world(seed=0, language="zh", sentences=3)
            >>> [json.loads(line) for line in world.to_text().splitlines()] == world.rows
            True
        """
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)


def make_world(
    seed: int,
    *,
    language: str = "en",
    sentences: int = 1000,
    rate: float = 0.01,
    mix: DamageMix = LLAMA_MIX,
) -> World:
    """Returns generated sentences with damaged predictions.

    Sentence i and its damage depend on the language, the seed and i alone.

    Args:
        seed: below 2**64.
        language: `en` or `zh`.
        sentences: how many.
        rate: probability in [0, 1] that a word of a prediction is damaged.
        mix: shares of the kinds of damage.

    Raises:
        ValueError: unknown language, or a number, seed or rate out of range.

    Example:
        >>> sorted(make_world(seed=0, sentences=2).rows[0])
        ['dataset', 'instance', 'label_list', 'prediction']
    """
    made = generate_sentences(language, sentences, seed)
    return World(sentences=made, written=corrupt_sentences(made, rate, mix, seed))
