"""Pairs as batches of tensors, for loops other than ours, such as transformers' `Trainer`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lmcore.diffusion.data import encode_pairs
from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.tokenization import TextTokenizer


class PairCollator:
    """Makes batches of pairs.

    Args:
        tokenizer: of source and target.
        length: positions of a row, L.

    Raises:
        ValueError: `length` is too small.

    Example:
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> batch = PairCollator(tokenizer, length=10)([Pair("a", "b"), Pair("a b", "b a")])
        >>> batch["input_ids"].shape, batch["target_mask"].sum(1).tolist()
        (torch.Size([2, 10]), [6, 5])
    """

    def __init__(self, tokenizer: TextTokenizer, length: int = 128) -> None:
        encode_pairs([], tokenizer, length)  # what is wrong with the length shows here
        self.tokenizer, self.length = tokenizer, length

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        """Returns a batch.

        Args:
            pairs: B of them.

        Returns:
            `input_ids`, `[B, L]` int64, and `target_mask`, `[B, L]` bool: positions that are made.

        Raises:
            ValueError: a text has no tokens.
        """
        encoded = encode_pairs(pairs, self.tokenizer, self.length)
        return {
            "input_ids": torch.from_numpy(encoded.ids).long(),
            "target_mask": torch.from_numpy(encoded.target_mask),
        }
