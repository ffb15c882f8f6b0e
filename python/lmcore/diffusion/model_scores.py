"""Scores of generated texts that a model gives: perplexity, and BERTScore.

Both take folders of models that are here; nothing is fetched. The package `bert-score` has had no
release since 2023 and brings pandas and matplotlib for a matching of a few lines, so BERTScore is
written here; its rule for marks of the tokenizer is kept.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from lmcore._extras import optional_imports
from lmcore.diffusion.scoring import list_references

with optional_imports():
    import torch
    import transformers
    from torch import Tensor
    from torch.nn.functional import cross_entropy, normalize

    from lmcore._folder_models import check_lengths, compute_by_length, load_folder


class Perplexity(NamedTuple):
    """How much texts surprise a model."""

    value: float
    """At least 1."""
    left_out: int
    """Texts of a single token, which have none."""


class BertScores(NamedTuple):
    """Means over all pairs."""

    precision: float
    """How well each token of an output is matched in its reference."""
    recall: float
    """How well each token of a reference is matched in the output."""
    f1: float
    """The mean of each pair's harmonic mean of both."""


def compute_perplexity(
    texts: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 16,
    device: str = "auto",
) -> Perplexity:
    """Returns the perplexity that a causal language model gives texts, each with the same weight.

    exp of the mean over texts of the mean negative log-likelihood of a text's tokens behind its
    first one, in float32; a text of one token has none and is left out. So the evaluator of
    Bridge-Gap Diffusion (arXiv 2305.04465) has it with GPT-2. No token is put before a text but
    what the tokenizer itself adds, which is none for GPT-2.

    Args:
        texts: one or more.
        folder: of a model and its tokenizer.
        batch_size: texts at once; the result does not depend on it but for rounding.
        device: as for `lmcore.training.processes.find_device`.

    Raises:
        ImportError: transformers is not installed.
        OSError: a file cannot be read.
        ValueError: no text of two tokens, a folder that holds no such model, or a text with more
            tokens than the model takes.

    Example:
        >>> compute_perplexity(["a"], "nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    if not texts:
        raise ValueError("texts must hold at least one text")
    tokenizer, model = load_folder(folder, transformers.AutoModelForCausalLM, device)

    def compute(tokens: Tensor, mask: Tensor) -> list[float]:
        logits = model(input_ids=tokens, attention_mask=mask).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        means: list[float] = ((losses * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)).tolist()
        return means

    rows = [tokenizer(text)["input_ids"] for text in texts]
    check_lengths(rows, model, folder)
    scored = [row for row in rows if len(row) > 1]
    if not scored:
        raise ValueError("texts must hold one of two tokens at least")
    losses = compute_by_length(scored, batch_size, model.device, compute)
    return Perplexity(math.exp(sum(losses) / len(losses)), len(rows) - len(scored))


def compute_bert_scores(
    outputs: Sequence[str],
    references: Sequence[str | Sequence[str]],
    folder: str | os.PathLike[str],
    *,
    layer: int | None = None,
    batch_size: int = 16,
    device: str = "auto",
) -> BertScores:
    """Returns how well tokens of outputs and references match as an encoder sees them.

    Each token is matched with the one of the other text whose hidden state has the largest cosine.
    Marks that the tokenizer adds can be matched, and do not count; there is neither weighting by
    document frequency nor a baseline.

    Source: Zhang et al., "BERTScore", ICLR 2020, equations 1 to 3.

    Args:
        outputs: N texts.
        references: N times a text, or several, of which for each of the three the best counts, as
            the package `bert-score` has it.
        folder: of a model and its tokenizer; of an encoder-decoder the encoder is taken.
        layer: whose states are compared, 0 for the embeddings; the last one if None.
        batch_size: texts at once; the result does not depend on it but for rounding.
        device: as for `lmcore.training.processes.find_device`.

    Raises:
        ImportError: transformers is not installed.
        OSError: a file cannot be read.
        ValueError: no texts, lengths that differ, an output without references, a folder that
            holds no such model, a layer that it does not have, or a text with more tokens than it
            takes.

    Example:
        >>> compute_bert_scores(["a"], ["a"], "nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    if not outputs:
        raise ValueError("outputs must hold at least one text")
    if len(outputs) != len(references):
        raise ValueError(
            "outputs and references must have the same length: "
            f"got {len(outputs)} and {len(references)}"
        )
    several = list_references(references)
    if [] in several:
        raise ValueError(f"references[{several.index([])}] must hold at least one text")
    tokenizer, model = load_folder(folder, transformers.AutoModel, device)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    texts = list(dict.fromkeys([*outputs, *chain.from_iterable(several)]))
    rows = [tokenizer(text)["input_ids"] for text in texts]
    check_lengths(rows, model, folder)
    marks = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}

    def compute(tokens: Tensor, mask: Tensor) -> list[Tensor]:
        found = model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
        states = found.hidden_states
        if layer is not None and not 0 <= layer < len(states):
            raise ValueError(f"layer must be at least 0 and at most {len(states) - 1}: got {layer}")
        chosen = normalize(states[-1 if layer is None else layer].float(), dim=-1).cpu()
        lengths = mask.sum(1).tolist()
        return [row[:length] for row, length in zip(chosen, lengths, strict=True)]

    states = dict(
        zip(texts, compute_by_length(rows, batch_size, model.device, compute), strict=True)
    )
    counted = {
        text: torch.tensor([token not in marks for token in row])
        for text, row in zip(texts, rows, strict=True)
    }

    def compare(one: str, others: list[str]) -> BertScores:
        found = (_match(states[one], states[o], counted[one], counted[o]) for o in others)
        return BertScores(*map(max, zip(*found, strict=True)))

    best = [compare(*pair) for pair in zip(outputs, several, strict=True)]
    return BertScores(*(sum(scores) / len(best) for scores in zip(*best, strict=True)))


def _match(output: Tensor, reference: Tensor, own: Tensor, other: Tensor) -> BertScores:
    if not own.any() or not other.any():
        return BertScores(0.0, 0.0, 0.0)
    cosines = output @ reference.T
    precision = float(cosines.amax(1)[own].mean())
    recall = float(cosines.amax(0)[other].mean())
    both = precision + recall
    return BertScores(precision, recall, 2 * precision * recall / both if both > 0 else 0.0)
