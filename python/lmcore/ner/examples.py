"""Sentences become what a model is trained with: instruction and target (GNER)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np

from lmcore.ner.instructions import (
    INSTRUCTIONS,
    Context,
    check_context,
    join_target,
    read_template,
)
from lmcore.ner.labels import check_boundaries, write_labels
from lmcore.ner.sentences import Sentence
from lmcore.ner.windows import check_windows, cut_windows, repair_window
from lmcore.ops.philox import Stream, random_bits, random_uniform

# Draws are made for many rows at once, and so many of them.
_ROWS_AT_ONCE = 256
_DRAWS_AT_ONCE = 1 << 18


@dataclass(kw_only=True, slots=True, frozen=True)
class ExampleConfig:
    """How examples are written; as it stands, as the paper does.

    Raises:
        TypeError: a value has another type.
        ValueError: a value is outside of its range.

    Example:
        >>> ExampleConfig(boundaries="bilou")
        Traceback (most recent call last):
        ValueError: boundaries must be one of bio, bioes, io: got 'bilou'
    """

    context: Context = "all"
    """Words that are no entity which a target keeps on each side of one, or `all`."""
    boundaries: str = "bio"
    """How labels of the target are written, one of `lmcore.ner.labels.BOUNDARIES`."""
    shuffle_types: bool = True
    """Name the types in an order of the row's own."""
    types_per_row: int | None = None
    """Types that an instruction names: those of the sentence, and absent ones up to this number;
    None names all."""
    drop_share: float = 0.0
    """Share of the types that an instruction leaves out, with the labels of their entities."""
    name_dataset: bool = False
    """Name the data set in the instruction."""
    template: str | None = None
    """Another wording, as for `write_instruction`."""
    max_words: int | None = None
    """Longer sentences are cut into windows of so many words."""
    overlap: int = 0
    """Words that two windows have in common."""
    seed: int = 0
    """Of orders, choices and drops, below 2**64."""

    def __post_init__(self) -> None:
        """Raises ValueError if a value is outside of its range."""
        check_context(self.context)
        check_boundaries(self.boundaries)
        check_windows(self.max_words, self.overlap)
        if self.types_per_row is not None and self.types_per_row < 1:
            raise ValueError(f"types_per_row must be at least 1: got {self.types_per_row}")
        if not 0 <= self.drop_share < 1:
            raise ValueError(f"drop_share must be at least 0 and below 1: got {self.drop_share}")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed must be at least 0 and below 2**64: got {self.seed}")
        if self.template is not None:
            read_template(self.template)


class Example(NamedTuple):
    """What a model is asked, and what it shall answer."""

    sentence: Sentence
    """The words with their labels, without those of types that were left out."""
    types: Sequence[str]
    """What the instruction names, in its order."""
    instruction: str
    target: str
    window: dict[str, int] | None = None
    """Of a sentence that was cut: the words `start` to `stop` of its `of` words, and `sentence`,
    the number of the sentence in the input, from 0."""

    def to_row(self) -> dict[str, Any]:
        """Returns the row of a file of examples.

        Example:
            >>> sentence = Sentence(["Ada"], ["B-person"], ["person"], "letters")
            >>> next(build_examples([sentence])).to_row()["target"]
            'Ada(B-person)'
        """
        sentence = self.sentence
        row: dict[str, Any] = {"dataset": sentence.dataset}
        if sentence.id is not None:
            row["id"] = sentence.id
        row["types"] = self.types
        if sentence.text is not None:
            row["text"] = sentence.text
        row["words"] = sentence.words
        row["labels"] = sentence.labels
        if self.window is not None:
            row["window"] = self.window
        row["instruction"] = self.instruction
        row["target"] = self.target
        return row


@dataclass(slots=True)
class ExampleReport:
    """What happened to sentences on their way."""

    sentences: int = 0
    rows: int = 0
    cut_sentences: int = 0
    """Sentences that were cut into windows."""
    cut_entities: int = 0
    """Entities that a window cut, being longer than it."""
    empty_targets: int = 0
    """Rows whose target is empty: no entity, and a context that is not `all`."""
    unreadable_words: int = 0
    """Rows with a word that holds what reads as a label."""
    dropped_entities: int = 0
    """Entities of types that were left out."""
    crowded_rows: int = 0
    """Rows whose sentence has more types than `types_per_row`; all of them are named."""
    joined_entities: int = 0
    """Entities that touch one of their type, which IO labels do not tell apart."""


def build_examples(
    sentences: Iterable[Sentence | Mapping[str, Any]],
    config: ExampleConfig | None = None,
    *,
    report: ExampleReport | None = None,
) -> Iterator[Example]:
    """Yields the examples of sentences, in their order.

    Row i depends on the config, its sentence and i alone.

    Source: GNER (arXiv 2402.16602), its prompt, section 4.2 for the orders and choices of types,
    and section 5.1 for the context.

    Args:
        sentences: what `read_sentences` yields, or rows with words, labels and types.
        config: how; `ExampleConfig()` if None.
        report: counts what happened.

    Raises:
        TypeError: a row holds another type.
        ValueError: a row cannot be used; the text says which, from 0.

    Example:
        >>> row = {"words": ["Ada", "ran"], "labels": ["B-person", "O"], "types": ["person"]}
        >>> example = next(build_examples([row], ExampleConfig(context=0)))
        >>> example.target
        'Ada(B-person)'
        >>> example.instruction.splitlines()[-2:]
        ['Use the specific entity tags: person and O.', 'Sentence: Ada ran']
    """
    builder = ExampleBuilder(config or ExampleConfig(), report or ExampleReport())
    return map(builder.write, builder.prepare(_checked(sentences)))


class Prepared(NamedTuple):
    """All that an example is written from."""

    sentence: Sentence
    types: Sequence[str]
    """What the instruction names, in its order."""
    labels: Sequence[str]
    """Those of the target: BIO labels, or written in another way."""
    window: dict[str, int] | None


class ExampleBuilder:
    """What `build_examples` does, in two steps.

    Args:
        config: how examples are written.
        report: counts what happened.

    Example:
        >>> builder = ExampleBuilder(ExampleConfig(), ExampleReport())
        >>> (prepared,) = builder.prepare([Sentence(["Ada"], ["B-person"], ["person"])])
        >>> builder.write(prepared).target
        'Ada(B-person)'
    """

    def __init__(self, config: ExampleConfig, report: ExampleReport) -> None:
        self.config = config
        text = INSTRUCTIONS[config.boundaries] if config.template is None else config.template
        self.template = read_template(text)
        self._report = report
        self._row = 0

    def prepare(self, sentences: Iterable[Sentence]) -> Iterator[Prepared]:
        """Yields what examples are written from, in the order of the sentences, and counts it.

        Args:
            sentences: checked ones.
        """
        pieces = self._cut(sentences)
        while block := list(islice(pieces, _ROWS_AT_ONCE)):
            yield from self._prepare(block)

    def write(self, prepared: Prepared) -> Example:
        """Returns the example.

        Args:
            prepared: what it is written from.
        """
        sentence, types, labels, window = prepared
        text = " ".join(sentence.words)
        self.count_unreadable("(" in text and ("(B-" in text or "(I-" in text or "(O)" in text))
        name = sentence.dataset if self.config.name_dataset else None
        instruction = self.template.fill(sentence.words, types, name)
        target = join_target(sentence.words, labels, self.config.context)
        return Example(sentence, types, instruction, target, window)

    def count_unreadable(self, rows: int) -> None:
        """Counts rows whose words hold what reads as a label.

        Args:
            rows: how many.
        """
        self._report.unreadable_words += rows

    def _cut(
        self, sentences: Iterable[Sentence]
    ) -> Iterator[tuple[Sentence, dict[str, int] | None]]:
        report, most, overlap = self._report, self.config.max_words, self.config.overlap
        for number, sentence in enumerate(sentences):
            report.sentences += 1
            count = len(sentence.words)
            if most is None or count <= most:
                yield sentence, None
                continue
            report.cut_sentences += 1
            for start, stop in cut_windows(count, most, overlap, sentence.labels):
                window = {"start": start, "stop": stop, "of": count, "sentence": number}
                yield self._take(sentence, start, stop), window

    def _take(self, sentence: Sentence, start: int, stop: int) -> Sentence:
        """A window as a sentence of its own."""
        labels = repair_window(sentence.labels[start:stop])
        is_cut = labels[0] != sentence.labels[start]
        ends_within = stop < len(sentence.labels) and sentence.labels[stop][0] == "I"
        self._report.cut_entities += is_cut or ends_within
        text, offsets = sentence.text, sentence.offsets
        if text is not None and offsets is not None:
            begin, end = offsets[start][0], offsets[stop - 1][1]
            text = text[begin:end]
            offsets = [(a - begin, b - begin) for a, b in offsets[start:stop]]
        words = sentence.words[start:stop]
        return sentence._replace(words=words, labels=labels, text=text, offsets=offsets)

    def _prepare(self, block: list[tuple[Sentence, dict[str, int] | None]]) -> Iterator[Prepared]:
        config, report = self.config, self._report
        for (sentence, window), types in zip(block, self._draw_types(block), strict=True):
            if config.drop_share:
                sentence = self._drop(sentence, types)
            labels = sentence.labels
            if config.context != "all" and labels.count("O") == len(labels):
                report.empty_targets += 1
            if config.boundaries != "bio":
                labels = self._write_labels(labels)
            report.rows += 1
            yield Prepared(sentence, types, labels, window)

    def _write_labels(self, labels: Sequence[str]) -> list[str]:
        if self.config.boundaries == "io":
            touching = [b for a, b in pairwise(labels) if b[0] == "B" and a[2:] == b[2:]]
            self._report.joined_entities += len(touching)
        return write_labels(labels, self.config.boundaries)

    def _drop(self, sentence: Sentence, types: Sequence[str]) -> Sentence:
        """The sentence without the labels of types that the instruction does not name."""
        named = {*types}
        labels = [label if label[2:] in named else "O" for label in sentence.labels]
        dropped = [a for a, b in zip(sentence.labels, labels, strict=True) if a != b]
        self._report.dropped_entities += sum(label[0] == "B" for label in dropped)
        return sentence._replace(labels=labels)

    def _draw_types(
        self, block: list[tuple[Sentence, dict[str, int] | None]]
    ) -> Iterator[Sequence[str]]:
        """The types of each row, in the order in which they are named."""
        start, self._row = self._row, self._row + len(block)
        most = max(len(sentence.types) for sentence, _ in block)
        step = max(1, _DRAWS_AT_ONCE // most)
        for first in range(0, len(block), step):
            rows = [sentence for sentence, _ in block[first : first + step]]
            if self._is_plain:
                yield from (sentence.types for sentence in rows)
                continue
            yield from self._draw(rows, range(start + first, start + first + len(rows)))

    @property
    def _is_plain(self) -> bool:
        config = self.config
        return not (config.shuffle_types or config.types_per_row or config.drop_share)

    def _draw(self, rows: list[Sentence], items: range) -> Iterator[Sequence[str]]:
        """The same for rows whose draws are made at once; row i has those of item i."""
        config = self.config
        counts = [len(sentence.types) for sentence in rows]
        most = max(counts)
        keys = random_bits(config.seed, Stream.TYPE_ORDERS, items, most)
        # Behind the draws of a row's own types stand none: those of other rows come last.
        used = np.arange(most) < np.array(counts)[:, None]
        order = np.argsort(np.where(used, keys, np.iinfo(np.uint64).max), axis=1, kind="stable")
        orders = order.tolist() if config.shuffle_types else [range(most)] * len(rows)
        if not config.types_per_row and not config.drop_share:
            for sentence, order_, count in zip(rows, orders, counts, strict=True):
                types = sentence.types
                yield [types[index] for index in order_[:count]]
            return
        choices = random_bits(config.seed, Stream.TYPE_CHOICES, items, most)
        drops = random_uniform(config.seed, Stream.TYPE_DROPS, items, most)
        for row, sentence in enumerate(rows):
            kept = self._choose(sentence, choices[row].tolist(), drops[row].tolist())
            yield [sentence.types[index] for index in orders[row] if index in kept]

    def _choose(self, sentence: Sentence, choices: list[int], drops: list[float]) -> set[int]:
        """Places of the types that the row's instruction names: one at least."""
        config, types = self.config, sentence.types
        kept = [index for index in range(len(types)) if drops[index] >= config.drop_share]
        if not kept:
            kept = [max(range(len(types)), key=drops.__getitem__)]
        most = config.types_per_row
        if most is None or len(kept) <= most:
            return {*kept}
        present = {label[2:] for label in sentence.labels if label != "O"}
        chosen = {index for index in kept if types[index] in present}
        if len(chosen) > most:
            self._report.crowded_rows += 1
        absent = sorted((index for index in kept if index not in chosen), key=choices.__getitem__)
        return chosen | {*absent[: max(0, most - len(chosen))]}


def _checked(sentences: Iterable[Sentence | Mapping[str, Any]]) -> Iterator[Sentence]:
    from lmcore.ner.rows import parse_sentence

    for number, sentence in enumerate(sentences):
        if isinstance(sentence, Sentence):
            yield sentence
            continue
        try:
            yield parse_sentence(sentence)
        except (TypeError, ValueError) as error:
            raise type(error)(f"row {number}: {error}") from None
