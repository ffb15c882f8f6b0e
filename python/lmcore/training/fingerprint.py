"""What tells a model from others: what was made with one is not continued with another."""

from __future__ import annotations

import hashlib
from typing import Any

from lmcore.training.checkpoint import hash_weights


def fingerprint_model(model: Any, tokenizer: Any) -> str:
    """Returns what tells a model and its tokenizer from others: a digest of weights and tokens.

    Args:
        model: of transformers.
        tokenizer: of the model.

    Example:
        >>> import torch
        >>> class Words:
        ...     def get_vocab(self):
        ...         return {"Ada": 0}
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> before = fingerprint_model(model, Words())
        >>> model.weight.data += 1
        >>> before == fingerprint_model(model, Words())
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    tokens = tokenizer.get_vocab().items() if backend is None else backend.to_str()
    digest.update(str(tokens if isinstance(tokens, str) else sorted(tokens)).encode())
    digest.update(hash_weights(model))
    return digest.hexdigest()
