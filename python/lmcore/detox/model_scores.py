"""What language models and encoders of local folders say of generated texts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lmcore._extras import optional_imports
from lmcore._json import read_json

with optional_imports():
    import torch
    import transformers
    from torch import Tensor
    from torch.nn.functional import cross_entropy, normalize

    from lmcore._folder_models import check_lengths, compute_by_length, load_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Perplexity(NamedTuple):
    """How much continuations surprise a model."""

    value: float
    """At least 1."""
    left_out: int
    """Continuations without a token that can be predicted."""


class Encoder(NamedTuple):
    """An encoder of a folder."""

    tokenizer: Any
    model: Any
    takes_first: bool
    """Whether a text's state is that of its first token, and not the mean of all."""
    place: str
    """The folder."""


def compute_perplexity(
    prompts: Sequence[str],
    texts: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 16,
    device: str = "auto",
    progress: Callable[[int], object] | None = None,
) -> Perplexity:
    """Returns the perplexity of continuations, each with the same weight, behind their prompts.

    exp of the mean over texts of the mean negative log-likelihood of a text's tokens, in float32.
    Tokens of prompt and text are made apart. A text whose prompt is empty begins behind its first
    token.

    Source: Detox-Chain (arXiv 2308.08295), section on fluency, with GPT2-XL.

    Args:
        prompts: N texts.
        texts: N texts, their continuations.
        folder: of a causal language model and its tokenizer.
        batch_size: texts at once; the result does not depend on it but for rounding.
        device: as for `lmcore.training.processes.find_device`.
        progress: called with the number of texts that were read together.

    Raises:
        ImportError: transformers is not installed.
        ValueError: lengths that differ, no text with a token to predict, a folder that holds no
            such model, or a text with more tokens than the model takes.

    Example:
        >>> compute_perplexity(["a"], ["b"], "nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    if len(prompts) != len(texts):
        raise ValueError(
            f"prompts and texts must have the same length: got {len(prompts)} and {len(texts)}"
        )
    tokenizer, model = load_folder(folder, transformers.AutoModelForCausalLM, device)
    rows, begins = [], []
    for prompt, text in zip(prompts, texts, strict=True):
        before = tokenizer(prompt, verbose=False)["input_ids"]
        after = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        begin = max(1, len(before))
        if len(before) + len(after) > begin:
            rows.append([*before, *after])
            begins.append(begin)
    if not rows:
        raise ValueError("no text has a token that can be predicted")
    check_lengths(rows, model, folder)
    # A row and where its text begins are computed together: the number stands before the ids.
    marked = [[begin, *row] for begin, row in zip(begins, rows, strict=True)]

    def compute(tokens: Tensor, mask: Tensor) -> list[float]:
        begin, ids, is_token = tokens[:, :1], tokens[:, 1:], mask[:, 1:]
        logits = model(input_ids=ids, attention_mask=is_token).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        places = torch.arange(1, ids.shape[1], device=ids.device)
        counted = is_token[:, 1:] * (places >= begin)
        means: list[float] = ((losses * counted).sum(1) / counted.sum(1)).tolist()
        if progress is not None:
            progress(len(means))
        return means

    losses = compute_by_length(marked, batch_size, model.device, compute)
    mean = sum(losses) / len(losses)
    return Perplexity(math.exp(min(mean, 700.0)), len(texts) - len(rows))


def load_encoder(folder: str | os.PathLike[str], device: str = "auto") -> Encoder:
    """Returns the encoder of a folder; of an encoder-decoder the encoder.

    Args:
        folder: of a model and its tokenizer.
        device: as for `lmcore.training.processes.find_device`.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the folder holds no such model, or its pooling is none that is known.

    Example:
        >>> load_encoder("nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    tokenizer, model = load_folder(folder, transformers.AutoModel, device)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return Encoder(tokenizer, model, _takes_first(Path(folder)), os.fspath(folder))


def embed_texts(
    texts: Sequence[str], encoder: Encoder, *, batch_size: int = 32
) -> NDArray[np.float64]:
    """Returns a vector of length 1 for each text.

    Args:
        texts: N texts, one at least.
        encoder: of `load_encoder`.
        batch_size: texts at once.

    Returns:
        `[N, D]` float64.

    Raises:
        ValueError: a text with more tokens than the encoder takes.

    Example:
        >>> embed_texts.__name__
        'embed_texts'
    """
    tokenizer, model, takes_first, place = encoder
    unknown = tokenizer.unk_token_id or 0
    rows = [tokenizer(text, verbose=False)["input_ids"] or [unknown] for text in texts]
    check_lengths(rows, model, place)

    def compute(tokens: Tensor, mask: Tensor) -> list[Tensor]:
        states = model(input_ids=tokens, attention_mask=mask).last_hidden_state.double()
        weights = mask[..., None].double()
        pooled = states[:, 0] if takes_first else (states * weights).sum(1) / weights.sum(1)
        return [*normalize(pooled, dim=-1).cpu()]

    pad = tokenizer.pad_token_id or 0
    found = compute_by_length(rows, batch_size, model.device, compute, pad=pad)
    array: NDArray[np.float64] = torch.stack(found).numpy()
    return array


def _takes_first(folder: Path) -> bool:
    """What the pooling of a folder of sentence-transformers says."""
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return False
    config = read_json(file, "the settings of a pooling")
    if not isinstance(config, dict):
        raise ValueError(f"{file}: not the settings of a pooling")
    modes = {name for name, value in config.items() if "pooling_mode" in name and value is True}
    if modes == {"pooling_mode_cls_token"} or config.get("pooling_mode") == "cls":
        return True
    if modes == {"pooling_mode_mean_tokens"} or config.get("pooling_mode") == "mean":
        return False
    raise ValueError(f"{file}: the pooling must be that of all tokens or of the first")
