"""Segments, masks and span finding as Detox-Chain's authors do them, written for timing.

Same steps and same cost as their scripts, in our words: a decode for each pair of tokens, a loop
over all labels in Python that sorts the outputs into two lists, one prompt at a time through the
model, and runs of masks replaced in the text, the longest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from lmcore.detox.tokenization import SegmentTokenizer

MASK = "[MASK]"


def make_tokenizer(tokenizer: SegmentTokenizer) -> Any:
    """Returns the same tokenizer in the class that they use."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab=tokenizer.tokenizer.get_vocab(with_added_tokens=True))


def list_pairs(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Returns the text of each pair of adjacent tokens."""
    return [
        tokenizer.decode(
            ids[k : k + 2], skip_special_tokens=True, clean_up_tokenization_spaces=True
        )
        for k in range(len(ids) - 1)
    ]


def mask(tokenizer: Any, ids: Sequence[int], labels: Iterable[int]) -> str:
    """Returns a text with a mask in place of toxic pairs."""
    tokens = list(ids)
    for place, label in enumerate(labels):
        if label == 1:
            tokens[place] = tokenizer.mask_token_id
            tokens[place + 1] = tokenizer.mask_token_id
    text: str = tokenizer.decode(tokens, clean_up_tokenization_spaces=True)
    for length in range(len(tokens), 1, -1):
        text = text.replace(" ".join([MASK] * length), MASK)
    return text.replace(MASK, "<MASK>")


def find_pairs(model: Any, tokenizer: Any, text: str, pad_to: int | None) -> list[int]:
    """Returns the label of each pair of a text, which goes through the model alone."""
    import torch

    padding = {} if pad_to is None else {"padding": "max_length", "max_length": pad_to}
    batch = tokenizer(text, return_tensors="pt", truncation=pad_to is not None, **padding)
    with torch.no_grad():
        found = model(batch["input_ids"], attention_mask=batch["attention_mask"])
    count = int(batch["attention_mask"].sum()) - 1
    probabilities = found.span_probabilities[0, 1 : count - 1]
    labels: list[int] = probabilities.argmax(-1).tolist()
    return labels


def span_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Returns the loss of segments: each label is looked at in turn.

    Args:
        probabilities: `[B, S, 2]`.
        labels: `[B, S]`, 1, 0, or -100 for none.
    """
    import torch
    from torch.nn import functional

    scores, targets = probabilities.reshape(-1, 2), labels.reshape(-1)
    toxic, other = [], []
    for place in range(len(targets)):
        if targets[place] == 1:
            toxic.append(place)
        else:
            other.append(place)
    loss = functional.cross_entropy(scores[other], targets[other])
    if toxic:
        own = functional.cross_entropy(scores[toxic], torch.ones(len(toxic), dtype=torch.long))
        loss = loss + 8 * own
    return loss / 2
