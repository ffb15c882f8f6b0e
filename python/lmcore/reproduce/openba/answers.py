"""Pairs of a source and an answer that a small OpenBA learns, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmcore.ops.denoising import SpecialIds
from lmcore.reproduce.openba.pretraining import PEAK, Corpus, learn
from lmcore.reproduce.openba.words import Words

if TYPE_CHECKING:
    from lmcore.openba.pairs import Pairs
    from lmcore.openba.samples import PairSamples

_BATCH = 128


def encode_pairs(texts: Sequence[tuple[str, str]], words: Words, ids: SpecialIds) -> Pairs:
    """Returns texts as ids; a target gets its end.

    Args:
        texts: source and target of each.
        words: that know all of them.
        ids: the special tokens.
    """
    from lmcore.openba.pairs import Pairs

    return Pairs(
        [words.encode(source) for source, _ in texts],
        [[*words.encode(target), ids.eos] for _, target in texts],
    )


def frame(pairs: Pairs, corpus: Corpus, prefix: str = "S", *, seed: int = 0) -> PairSamples:
    """Returns samples of pairs, nothing of which is cut.

    Args:
        pairs: at least one.
        corpus: whose special tokens they get.
        prefix: `R`, `S` or `X`.
        seed: of their order.
    """
    from lmcore.openba.samples import PairSamples

    source, target = pairs.sizes.max(axis=0).tolist()
    return PairSamples(
        pairs, seed=seed, widths=(source + 3, target + 1), ids=corpus.ids,
        prefix=corpus.prefixes[prefix],
    )  # fmt: skip


def learn_pairs(
    model: Any, pairs: Pairs, corpus: Corpus, *, seed: int, steps: int, batch_size: int = 32
) -> None:
    """Trains a model on pairs behind `<S>`, with the third stage's optimizer.

    Args:
        model: it is trained itself.
        pairs: to train on.
        corpus: whose special tokens they get.
        seed: of the order of the pairs.
        steps: how many.
        batch_size: pairs of a step.
    """
    from lmcore.openba.batches import SampleBatches

    batches = SampleBatches([frame(pairs, corpus, seed=seed)], batch_size, batch_size)
    learn(
        model, batches, steps, lr=0.5 * PEAK, final=0.1, rises=20, betas=(0.9, 0.999),
        weight_decay=0.01,
    )  # fmt: skip


def measure_answers(model: Any, pairs: Pairs, corpus: Corpus, prefix: str = "S") -> float:
    """Returns the nats per target token that a model loses on answers.

    Args:
        model: of OpenBA.
        pairs: what is asked, and the answers.
        corpus: whose special tokens they get.
        prefix: `R`, `S` or `X`.
    """
    from lmcore.openba.objective import measure_pair_losses

    model.eval()
    return measure_pair_losses(model, frame(pairs, corpus, prefix), batch_size=_BATCH)["loss"]


def write_answers(
    model: Any, pairs: Pairs, corpus: Corpus, prefix: str = "S", *, count: int | None = None
) -> Iterator[list[int]]:
    """Yields what a model answers, greedily and up to its end, which is left out.

    The decoder begins with the start and the first sentinel. An answer ends at two tokens more
    than the longest right one at the latest.

    Args:
        model: of OpenBA.
        pairs: what is asked.
        corpus: whose special tokens they get.
        prefix: `R`, `S` or `X`.
        count: of the pairs the first so many; None for all.
    """
    import torch

    model.eval()
    samples = frame(pairs, corpus, prefix)
    rows = np.arange(len(pairs) if count is None else count)
    most = int(pairs.sizes[:, 1].max()) + 2
    for first in range(0, len(rows), _BATCH):
        part = rows[first : first + _BATCH]
        batch = samples.make_rows(part, samples.plan_rows(part))
        with torch.inference_mode():
            found = model.generate(
                input_ids=torch.from_numpy(batch.encoder),
                attention_mask=torch.from_numpy(batch.masks()[0]),
                decoder_input_ids=torch.from_numpy(batch.decoder[:, :2].copy()),
                max_new_tokens=most, do_sample=False, eos_token_id=corpus.ids.eos,
                pad_token_id=corpus.ids.pad,
            )  # fmt: skip
        for row in found[:, 2:].tolist():
            yield row[: row.index(corpus.ids.eos)] if corpus.ids.eos in row else row


def find_right(model: Any, pairs: Pairs, corpus: Corpus, prefix: str = "S") -> NDArray[np.bool_]:
    """Returns which answers are right, each token of them: `[N]`.

    Args:
        model: of OpenBA.
        pairs: what is asked, and the answers.
        corpus: whose special tokens they get.
        prefix: `R`, `S` or `X`.
    """
    found = enumerate(write_answers(model, pairs, corpus, prefix))
    right = [answer == pairs[number].target[:-1].tolist() for number, answer in found]
    return np.array(right, np.bool_)
