"""A small OpenBA after its first stage and after its third: what several claims look at."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lmcore.reproduce.claim import Size
from lmcore.reproduce.openba.answers import encode_pairs, learn_pairs
from lmcore.reproduce.openba.pretraining import (
    SCALES,
    Corpus,
    Pretraining,
    Scale,
    generate_corpus,
)
from lmcore.reproduce.openba.words import Words
from lmcore.worlds.openba.downstream import KINDS, make_downstream
from lmcore.worlds.openba.tasks import Row, make_instructions

if TYPE_CHECKING:
    from lmcore.openba.pairs import Pairs

# Of the seeds of worlds that the first stage has not seen.
_OTHER = 1 << 32


@dataclass(kw_only=True, slots=True, frozen=True)
class Sizes:
    """Of the experiment."""

    scale: Scale
    """Of the first stage."""
    steps: int
    """Of the third."""
    rows: int
    """That the third stage reads."""
    tests: int
    """Rows that are asked."""
    tuning_steps: int
    """Of a fine-tune."""
    tuning_rows: int
    """That a fine-tune reads."""
    tuning_tests: int
    """Rows of a fine-tune that are asked."""


SIZES: dict[Size, Sizes] = {
    "tiny": Sizes(
        scale=SCALES["tiny"], steps=2, rows=40, tests=20, tuning_steps=2, tuning_rows=30,
        tuning_tests=10,
    ),
    "full": Sizes(
        scale=replace(SCALES["quick"], steps=400, hidden_size=96, inner_size=192),
        steps=800, rows=20_000, tests=1000, tuning_steps=300, tuning_rows=6000,
        tuning_tests=300,
    ),
}  # fmt: skip
"""By the size of the claims."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Stages:
    """Both models, and what they know."""

    before: Any
    """After the first stage."""
    after: Any
    """After the third."""
    corpus: Corpus
    words: Words
    rows: Sequence[Row]
    """Instructions that are asked."""
    asked: Pairs
    """The same as ids."""
    tuning: Mapping[str, tuple[Pairs, Pairs]]
    """Of each fine-tune what it reads, and what is asked."""


def format_rows(kind: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Returns the sources and targets of a fine-tune's rows, in the paper's format.

    Of a dialogue the last turn is asked.

    Args:
        kind: one of `lmcore.worlds.openba.downstream.KINDS`.
        rows: of its world.
    """
    from lmcore.openba import formats

    def write(row: Mapping[str, Any]) -> tuple[str, str]:
        if kind == "chat":
            turns = [(turn["human"], turn["assistant"]) for turn in row["turns"]]
            return [*formats.format_chat(turns)][-1]
        if kind == "code":
            return formats.format_code(row["instruction"], row["output"])
        if kind == "instruction_generation":
            return formats.format_instruction_generation(
                row["answer"], row["instruction"], language=row["language"]
            )
        return formats.format_tool(row["query"], row["results"], question=row["question"])

    return [write(row) for row in rows]


@functools.cache
def train_stages(seed: int, size: Size) -> Stages:
    """Returns models of a seed; they are trained once in a process.

    Args:
        seed: of the worlds and of training.
        size: of the models, and how many steps.
    """
    sizes = SIZES[size]
    rows = make_instructions(seed + _OTHER, rows=sizes.rows + sizes.tests).rows
    tuning = {
        kind: format_rows(
            kind,
            make_downstream(
                kind, seed + 2 * _OTHER, rows=sizes.tuning_rows + sizes.tuning_tests
            ).rows,
        )
        for kind in KINDS
    }  # fmt: skip
    texts = [(row.source, row.target) for row in rows]
    words = Words()
    # Every word has its id before the first stage, which sees most of them in documents alone.
    for pair in [*texts, *(pair for pairs in tuning.values() for pair in pairs)]:
        for text in pair:
            words.encode(text)
    corpus = generate_corpus(seed, sizes.scale, words)
    train, asked = hold_out(texts, sizes.tests, words, corpus)
    before = Pretraining(seed, sizes.scale, corpus, corpus.denoisers).train().model
    after = copy.deepcopy(before)
    learn_pairs(after, train, corpus, seed=seed, steps=sizes.steps)
    return Stages(
        before=before, after=after, corpus=corpus, words=words, rows=rows[sizes.rows :],
        asked=asked,
        tuning={
            kind: hold_out(pairs, sizes.tuning_tests, words, corpus)
            for kind, pairs in tuning.items()
        },
    )  # fmt: skip


def hold_out(
    texts: Sequence[tuple[str, str]], tests: int, words: Words, corpus: Corpus
) -> tuple[Pairs, Pairs]:
    """Returns pairs to train on, and the last ones, whose sources are none of the others'.

    Args:
        texts: source and target of each.
        tests: how many are the last ones.
        words: that know all of them.
        corpus: whose special tokens they get.
    """
    asked = texts[-tests:]
    sources = {source for source, _ in asked}
    train = [pair for pair in texts[:-tests] if pair[0] not in sources]
    return encode_pairs(train, words, corpus.ids), encode_pairs(asked, words, corpus.ids)
