"""Normal noise as a function of (seed, row, step, position), computed where the latents are.

A row then has the same noise whatever stands beside it in a batch.  The generator is that of
`lmcore.ops.philox`, draw for draw, in torch's integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lmcore.ops.philox import Stream

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


def draw_words(
    seed: int, stream: int, items: Tensor, blocks: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the words of the first blocks of each item, as `lmcore.ops.random_bits` makes them.

    Args:
        seed: below 2**64.
        stream: below 2**32.
        items: `[B]` int64, at least 0.
        blocks: of four words, below 2**32.

    Returns:
        Four times `[B, blocks]` int64 below 2**32: the first two words make draw 2 b of block b,
        the others the next.

    Example:
        >>> words = draw_words(0, 0, torch.tensor([0]), 1)
        >>> [f"{int(word):08x}" for word in words]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0 = torch.arange(blocks, device=items.device)[None]
    c1, c2 = (items & _MASK)[:, None], (items >> 32)[:, None]
    c3 = torch.full_like(c2, stream)
    k0, k1 = seed & _MASK, seed >> 32
    for _ in range(_ROUNDS):
        # Products of 32 bits have 64, of which int64 keeps all: only its sign reads otherwise.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> 32 & _MASK) ^ c1 ^ k0,
            second & _MASK,
            (first >> 32 & _MASK) ^ c3 ^ k1,
            first & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def draw_normals(seed: int, stream: int, items: Tensor, count: int) -> Tensor:
    """Returns numbers from the standard normal distribution, `count` for each item.

    The uniform draws 2 b and 2 b + 1 of an item (`lmcore.ops.random_uniform`) make its normal
    numbers 2 b and 2 b + 1, by the transform of Box and Muller in float64.

    Args:
        seed: below 2**64.
        stream: below 2**32.
        items: `[B]` int64, at least 0.
        count: below 2**33.

    Returns:
        `[B, count]` float32.

    Example:
        >>> draw_normals(0, 0, torch.tensor([0, 1]), 3).shape
        torch.Size([2, 3])
    """
    w0, w1, w2, w3 = draw_words(seed, stream, items, -(-count // 2))
    first, second = (
        (high << 21 | low >> 11).double() * 2.0**-53 for low, high in ((w0, w1), (w2, w3))
    )
    # 1 - u is never 0.
    radius = (-2 * torch.log1p(-first)).sqrt()
    angle = 2 * math.pi * second
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return pairs.flatten(1)[:, :count].float()


class SamplingNoise:
    """The noise that sampling a batch needs: where it starts, and what each step adds.

    Args:
        seed: below 2**64.
        rows: `[B]` numbers of the rows among all that are sampled, each below 2**31.
        length: L, positions of a row; a shorter row has the same numbers at its positions.
        size: E.
        device: where it is made.

    Raises:
        ValueError: a seed or a row lies outside its range.

    Example:
        >>> noise = SamplingNoise(1, [5, 6], length=3, size=4)
        >>> noise.start().shape, noise(0).shape
        (torch.Size([2, 3, 4]), torch.Size([2, 3, 4]))
        >>> torch.equal(noise(7)[1:], SamplingNoise(1, [6], length=3, size=4)(7))
        True
    """

    def __init__(
        self,
        seed: int,
        rows: Sequence[int],
        length: int,
        size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed must be at least 0 and below 2**64: got {seed}")
        wrong = [row for row in rows if not 0 <= row < 1 << 31]
        if wrong:
            raise ValueError(f"rows must be at least 0 and below 2**31: got {wrong[0]}")
        self.seed = seed
        self.shape = (len(rows), length, size)
        self._rows = torch.tensor(list(rows), dtype=torch.int64, device=device)

    def start(self) -> Tensor:
        """Returns the latents that sampling starts with, `[B, L, E]` float32."""
        return self._draw(Stream.START_NOISE, 0)

    def __call__(self, step: int) -> Tensor:
        """Returns what step `step` of the process adds, `[B, L, E]` float32.

        Args:
            step: at least 0 and below 2**31.
        """
        return self._draw(Stream.SAMPLING_NOISE, step)

    def _draw(self, stream: Stream, step: int) -> Tensor:
        _, length, size = self.shape
        items = self._rows | step << 32
        return draw_normals(self.seed, stream, items, length * size).view(self.shape)
