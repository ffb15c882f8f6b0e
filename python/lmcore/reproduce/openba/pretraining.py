"""Small OpenBA models that are trained from nothing, on generated or on real texts."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.ops.denoising import DenoisedBatch, Denoiser, SpecialIds, ul2
from lmcore.reproduce.claim import Size
from lmcore.reproduce.openba.words import TEXT, Words
from lmcore.worlds.openba import make_world

PEAK = 2e-3
"""Largest step size of the first stage."""
_END = 1
_SENTINELS = 100
# Chinese and English lines in turns, of a vocabulary of their most frequent pieces.
_CORPORA = ("corpora/en", "corpora/zh")
_PIECES = "tok/chinese_llama_sp_20k.model"


@dataclass(kw_only=True, slots=True, frozen=True)
class Scale:
    """How large the experiment is."""

    hidden_size: int
    inner_size: int
    encoder_layers: int
    decoder_layers: int
    steps: int
    batch_size: int
    micro_batch_size: int
    length: int
    """Tokens of a group."""
    documents: int
    """Of the generated corpus."""
    tests: int
    """Groups that are held out."""


SCALES: dict[Size, Scale] = {
    "tiny": Scale(
        hidden_size=16, inner_size=32, encoder_layers=1, decoder_layers=1, steps=2, batch_size=4,
        micro_batch_size=4, length=32, documents=60, tests=8,
    ),
    "quick": Scale(
        hidden_size=64, inner_size=128, encoder_layers=1, decoder_layers=2, steps=150,
        batch_size=32, micro_batch_size=32, length=64, documents=20_000, tests=128,
    ),
    "full": Scale(
        hidden_size=64, inner_size=128, encoder_layers=2, decoder_layers=6, steps=400,
        batch_size=32, micro_batch_size=32, length=64, documents=30_000, tests=256,
    ),
}  # fmt: skip
"""By the size of the claims."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Corpus:
    """Groups of tokens, and the ids that are no words."""

    train: NDArray[np.int64]
    """`[N, L]`."""
    test: NDArray[np.int64]
    """`[M, L]`, of documents that are not in `train`."""
    vocabulary_size: int
    ids: SpecialIds
    prefixes: Mapping[str, int]
    """The ids of `<R>`, `<S>` and `<X>`."""

    @property
    def denoisers(self) -> tuple[Denoiser, ...]:
        """The seven of UL2, with these ids."""
        return ul2(*(self.prefixes[name] for name in "RSX"))


def generate_corpus(seed: int, scale: Scale, words: Words | None = None) -> Corpus:
    """Returns groups of generated documents, English and Chinese in turns.

    Args:
        seed: of the world.
        scale: how large.
        words: those that have an id already; the documents' are added. None: there are none.

    Example:
        >>> corpus = generate_corpus(0, SCALES["tiny"])
        >>> corpus.test.shape
        (8, 32)
    """
    world = make_world(seed, documents=scale.documents)
    known = Words() if words is None else words
    texts = (known.add(document.words) for document in world.documents)
    return _group(texts, scale, lambda: len(known))


def read_corpus(seed: int, scale: Scale, *, most: int = 4000) -> Corpus:
    """Returns groups of real lines, English and Chinese in turns; the most frequent pieces alone.

    Args:
        seed: of the order of the lines.
        scale: how large; its documents are ignored.
        most: pieces that are told apart; all others are one.

    Raises:
        OSError: a file of `LMCORE_DATA` cannot be read.
    """
    from lmcore.openba import PieceFile

    root = Path(os.environ["LMCORE_DATA"])
    tokenizer = PieceFile(root / _PIECES).to_tokenizer()
    generator = np.random.default_rng(seed)
    lines = []
    for folder in _CORPORA:
        files = sorted((root / folder).glob("*.txt"))
        found = [line for file in files for line in file.read_text().splitlines() if line.strip()]
        lines.append([found[index] for index in generator.permutation(len(found))])
    turns = [line for pair in zip(*lines, strict=False) for line in pair]
    encoded = [item.ids for item in tokenizer.encode_batch(turns, add_special_tokens=False)]
    counts = np.bincount(np.fromiter(itertools.chain.from_iterable(encoded), np.int64))
    order = np.argsort(-counts, kind="stable")[: most - 1]
    ids = np.full(len(counts), TEXT + most - 1)
    ids[order] = TEXT + np.arange(len(order))
    return _group((ids[text].tolist() for text in encoded), scale, lambda: most)


def _group(texts: Iterable[Sequence[int]], scale: Scale, count: Any) -> Corpus:
    """Texts one after the other, each with its end, cut into groups; the last ones are tests."""
    stream = np.fromiter(itertools.chain.from_iterable((*text, _END) for text in texts), np.int64)
    groups = stream[: len(stream) // scale.length * scale.length].reshape(-1, scale.length)
    first = TEXT + count()
    prefixes = {name: first + _SENTINELS + place for place, name in enumerate("RSX")}
    ids = SpecialIds(
        vocabulary_size=first + _SENTINELS + 3, first_sentinel=first + _SENTINELS - 1,
        sentinel_count=_SENTINELS, eos=_END,
    )  # fmt: skip
    # A group between both holds a document of each.
    return Corpus(
        train=groups[: -scale.tests - 1], test=groups[-scale.tests :],
        vocabulary_size=ids.vocabulary_size, ids=ids, prefixes=prefixes,
    )  # fmt: skip


class Pretraining:
    """A model that is trained on batches which are functions of the step.

    Args:
        seed: of the weights, and of what is denoised.
        scale: how large.
        corpus: what it reads.
        denoisers: what it is trained with.
    """

    def __init__(
        self, seed: int, scale: Scale, corpus: Corpus, denoisers: Sequence[Denoiser]
    ) -> None:
        import torch

        from lmcore.openba import DenoisedBatches, OpenBAConfig, OpenBAForConditionalGeneration

        torch.manual_seed(seed)
        size = scale.hidden_size
        self.model: Any = OpenBAForConditionalGeneration(
            OpenBAConfig(
                vocab_size=corpus.vocabulary_size, hidden_size=size, num_heads=4,
                kv_channels=max(2, size // 4), ffn_hidden_size=scale.inner_size,
                swiglu_rule=False, encoder_layers=scale.encoder_layers,
                decoder_layers=scale.decoder_layers, hidden_dropout=0.0, attention_dropout=0.0,
                add_qkv_bias=True, add_lm_head_bias=True, tie_word_embeddings=False,
            )
        )  # fmt: skip
        self._batches = DenoisedBatches(
            corpus.train, scale.batch_size, scale.micro_batch_size, seed=seed,
            denoisers=denoisers, ids=corpus.ids, threads=1,
        )  # fmt: skip
        self._corpus, self._scale = corpus, scale

    @property
    def parameter_count(self) -> int:
        """Weights of the model."""
        return sum(weight.numel() for weight in self.model.parameters())

    def train(self, lr: float = PEAK) -> Pretraining:
        """Trains all steps, with a step size that rises and then falls to a tenth.

        Args:
            lr: the largest step size.
        """
        learn(self.model, self._batches, self._scale.steps, lr=lr, final=0.1, rises=20)
        return self

    def evaluate(self, *denoisers: Denoiser) -> dict[str, float]:
        """Returns the nats per target token of the groups that are held out, and `loss`, the mean.

        Args:
            denoisers: what they are denoised with; the same spans for all models.
        """
        from lmcore.openba.objective import measure_losses

        self.model.eval()
        return measure_losses(
            self.model, self._corpus.test, denoisers=denoisers, ids=self._corpus.ids, batch_size=64
        )


def learn(
    model: Any,
    batches: Callable[[int], Sequence[DenoisedBatch]],
    steps: int,
    *,
    lr: float = PEAK,
    final: float,
    rises: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.1,
) -> None:
    """Trains a model with a new optimizer: a stage.

    Args:
        model: of OpenBA.
        batches: (step, from 1) to its micro-batches.
        steps: how many.
        lr: the largest step size of AdamW.
        final: share of it at the end, to which it falls in a line.
        rises: how much faster it rises than steps pass; 0: it begins at the largest.
        betas: of AdamW.
        weight_decay: of AdamW.
    """
    import torch

    from lmcore.openba.objective import sum_losses

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, fused=True
    )
    model.train()
    for step in range(1, steps + 1):
        rise = min(1.0, rises * step / steps) if rises else 1.0
        for group in optimizer.param_groups:
            group["lr"] = lr * rise * (1 - (1 - final) * step / steps)
        parts = batches(step)
        count = sum(int(part.decoder_lengths.sum()) for part in parts)
        optimizer.zero_grad()
        for part in parts:
            (sum_losses(model, part).sum() / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def under(denoiser: Denoiser, prefix: int) -> Denoiser:
    """Returns the denoiser with another prefix.

    Args:
        denoiser: any.
        prefix: an id.
    """
    return replace(denoiser, prefix=prefix)
