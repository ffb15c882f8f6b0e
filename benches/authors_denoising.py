"""UL2 samples as others make them, written anew after their algorithms.

`build_sample` is OpenBA's: numpy's generator for each sample, spans from a shuffled vector, lists
of ids, padded arrays, and three dense masks of int64. Where its ids are put together, it takes
numpy's operations on whole rows rather than a loop over tokens. `collate` is the recipe of T5's
span corruption for a batch of token arrays that Hugging Face's example made known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ENCODER, DECODER = 570, 381
EOS, BOS, PAD = 1, 0, 0
FIRST_SENTINEL = 250_199
R, S, X = 250_200, 250_201, 250_202
# Prefix, mean length of a span, density; without a mean length a suffix.
TASKS = {
    1: (R, 3, 0.15),
    2: (R, 8, 0.15),
    3: (S, None, 0.25),
    4: (X, 3, 0.5),
    5: (X, 8, 0.5),
    6: (X, 64, 0.15),
    7: (X, 64, 0.5),
}

Array = NDArray[Any]


def draw_mask(rng: np.random.Generator, length: int, mean: float, density: float) -> Array:
    """Returns which tokens are noise, as T5 draws it."""
    noise = int(min(max(np.round(length * density), 1), length - 1))
    spans = int(max(np.round(noise / mean), 1))

    def cut(total: int) -> Array:
        first = np.arange(total - 1) < spans - 1
        rng.shuffle(first)
        segments = np.cumsum(np.pad(first, [[1, 0]]))
        _, lengths = np.unique(segments, return_counts=True)
        return lengths

    noise_lengths = cut(noise)
    kept_lengths = cut(length - noise)
    lengths = np.reshape(np.stack([kept_lengths, noise_lengths], axis=1), [2 * spans])
    starts = np.zeros(length, np.int8)
    starts[np.cumsum(lengths)[:-1]] = 1
    return np.equal(np.cumsum(starts) % 2, 1)


def build_sample(
    tokens: Array, index: int, seed: int, *, masks: bool, task: int | None = None
) -> dict[str, Any]:
    """Returns one padded sample as OpenBA's data set gives it, with the mask that was drawn."""
    rng = np.random.default_rng(seed + index)
    drawn = int(rng.integers(1, 8))
    prefix, mean, density = TASKS[task or drawn]
    text = tokens.tolist()
    if mean is None:
        rng = np.random.default_rng(seed + index)
        count = int(rng.uniform(1, round(density * len(text)) + 1))
        noise = np.arange(len(text)) >= len(text) - count
        encoder = [prefix, *text[:-count], FIRST_SENTINEL, EOS]
        decoder = [BOS, FIRST_SENTINEL, *text[-count:]]
        labels = [FIRST_SENTINEL, *text[-count:], EOS]
    else:
        noise = draw_mask(rng, len(text), mean, density)
        encoder = [prefix, *_filter(tokens[None], _sentinels(noise[None]))[0].tolist()]
        labels = _filter(tokens[None], _sentinels(~noise[None]))[0].tolist()
        decoder = [BOS, *labels[:-1]]
    source = np.array(encoder + [PAD] * (ENCODER - len(encoder)), np.int64)
    target = np.array(decoder + [PAD] * (DECODER - len(decoder)), np.int64)
    padding = DECODER - len(labels)
    sample: dict[str, Any] = {
        "noise": noise,
        "encoder": source,
        "decoder": target,
        "labels": np.array(labels + [-1] * padding, np.int64),
        "loss_mask": np.array([1] * len(labels) + [0] * padding, np.int64),
    }
    if masks:
        visible = target.copy()
        visible[0] = 1
        sample["encoder_mask"] = _mask(source, source)
        sample["cross_mask"] = _mask(visible, source)
        order = np.arange(DECODER)
        history = (order[None,] <= order[:, None]).astype(np.int64)
        sample["decoder_mask"] = _mask(visible, visible) * history
    return sample


def build_batch(tokens: Array, first: int, seed: int, *, masks: bool) -> list[dict[str, Any]]:
    """Returns the samples of a batch, which a loader would stack."""
    return [build_sample(row, first + place, seed, masks=masks) for place, row in enumerate(tokens)]


def collate(
    tokens: Array, rng: np.random.Generator, mean: float = 3.0, density: float = 0.15
) -> tuple[Array, Array, Array, Array]:
    """Returns noise masks, encoder ids, decoder ids and labels of a batch in T5's recipe."""
    noise = np.stack([draw_mask(rng, tokens.shape[1], mean, density) for _ in tokens])
    encoder = _filter(tokens, _sentinels(noise))
    # The text begins with what is kept, so that the sentinels of what is kept number the noise.
    labels = _filter(tokens, _sentinels(~noise))
    decoder = np.zeros_like(labels)
    decoder[:, 1:] = labels[:, :-1]
    return noise, encoder, decoder, labels


def _mask(rows: Array, columns: Array) -> Array:
    return ((rows[:, None] >= 1) * (columns[None, :] >= 1)).astype(np.int64)


def _sentinels(noise: Array) -> Array:
    """Returns sentinels at the starts of spans, -1 in them, 0 elsewhere."""
    before = np.roll(noise, 1, axis=-1)
    before[:, 0] = False
    starts = noise & ~before
    sentinels = np.where(starts, FIRST_SENTINEL + 1 - np.cumsum(starts, axis=-1), 0)
    sentinels[noise & ~starts] = -1
    return sentinels


def _filter(tokens: Array, sentinels: Array) -> Array:
    whole = np.where(sentinels != 0, sentinels, tokens)
    kept = whole[whole >= 0].reshape(len(tokens), -1)
    return np.concatenate([kept, np.full((len(tokens), 1), EOS)], axis=-1)
