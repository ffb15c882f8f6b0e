"""Models of folders, loaded to be run: nothing is fetched, and no code of a folder is run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lmcore._extras import optional_imports
from lmcore._text import find_reason
from lmcore.compression.vocabulary_tensors import load_config

HEADS = {
    "encoder-decoder": "AutoModelForSeq2SeqLM", "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModelForMaskedLM",
}  # fmt: skip
"""The classes with an output layer, by the kind of a model."""


def find_kind(config: Any) -> str:
    """Returns whether a model is an `encoder-decoder`, a `decoder` or an `encoder`.

    Args:
        config: of the model.

    Example:
        >>> from transformers import BertConfig, GPT2Config, T5Config
        >>> [find_kind(kind()) for kind in (T5Config, GPT2Config, BertConfig)]
        ['encoder-decoder', 'decoder', 'encoder']
    """
    with optional_imports():
        from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    if config.is_encoder_decoder:
        return "encoder-decoder"
    masked = type(config) in AutoModelForMaskedLM._model_mapping
    causal = type(config) in AutoModelForCausalLM._model_mapping
    return "encoder" if masked and not (causal and config.is_decoder) else "decoder"


@contextmanager
def _no_reports() -> Iterator[None]:
    """Of weights that lack or are too many: what matters of it is an error here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def load_model(
    folder: str | os.PathLike[str],
    kind: Any = None,
    *,
    dtype: str = "float32",
    device: str | None = "cpu",
) -> Any:
    """Returns a model in the mode of evaluation; every weight comes from its folder.

    Args:
        folder: of the model.
        kind: the class; the one with an output layer if None.
        dtype: of the weights; `auto` is that of the files.
        device: where it shall be.

    Raises:
        ImportError: transformers is not installed.
        OSError: a file cannot be read.
        ValueError: it cannot be loaded, weights of the class are not there, or one is not finite.

    Example:
        >>> import tempfile
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=9, n_layer=1, n_embd=8, n_head=2, bos_token_id=None,
        ...     eos_token_id=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     GPT2LMHeadModel(config).save_pretrained(folder)
        ...     load_model(folder).training
        False
    """
    with optional_imports():
        import torch
        import transformers

        from lmcore.training.checkpoint import check_weights, no_bars
    if kind is None:
        kind = getattr(transformers, HEADS[find_kind(load_config(folder))])
    place = os.fspath(folder)
    try:
        with no_bars(), _no_reports():
            model, found = kind.from_pretrained(
                place,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                local_files_only=True,
                output_loading_info=True,
            )
    except (MemoryError, ImportError, OSError):
        raise
    except Exception as error:  # what stands in a folder may fail in any way
        text = f"{place}: not a model that can be loaded: {find_reason(error)}"
        raise ValueError(text) from error
    # A pooler stands beside the states, which do not come through it.
    missing = [name for name in sorted(found["missing_keys"]) if "pooler." not in name]
    if missing:
        name = type(model).__name__
        raise ValueError(f"{place}: lacks {missing[0]}, which {name} has: it would be random")
    model = model.eval().to(device)
    try:
        check_weights(model)
    except FloatingPointError as error:
        raise ValueError(f"{place}: {error.args[0].partition(';')[0]}") from None
    return model
