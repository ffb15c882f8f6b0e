"""Back tokenisation: input words as the model could have written them.

A tokenizer that does not know a character cannot write it. The paper therefore passes each
lower-cased input word through the tokenizer and compares the result with the generated words
(GNER, arXiv 2402.16602, back tokenisation).
"""

from __future__ import annotations

import os
from typing import Any

from lmcore._auto_classes import register_systems
from lmcore._extras import optional_imports

_LIMIT = 1_000_000


class BackTokenizer:
    """Round trips of words through a tokenizer; each distinct word is asked for once.

    Args:
        tokenizer: a transformers tokenizer, or a `tokenizers.Tokenizer`.

    Raises:
        TypeError: it is neither.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> vocabulary = {"<unk>": 0, "bront": 1}
        >>> known = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
        >>> _ = known.add_special_tokens(["<unk>"])
        >>> BackTokenizer(known)(["bront", "brontë"])
        ['bront', '']
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        is_transformers = hasattr(tokenizer, "batch_decode")
        is_tokenizers = hasattr(backend, "encode_batch_fast") and hasattr(backend, "decode_batch")
        if not is_transformers and not is_tokenizers:
            raise TypeError(
                "tokenizer must be a transformers tokenizer or a tokenizers.Tokenizer: "
                f"got {type(tokenizer).__name__}"
            )
        self._tokenizer = tokenizer
        # The batch calls of the library itself give the same texts without its Python
        # objects around each word, unless the wrapper changes the decoded text.
        cleans = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))
        self._backend: Any = backend if is_tokenizers and not cleans else None
        self._known: dict[str, str] = {}

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> BackTokenizer:
        """Returns the back tokenizer of a saved or published tokenizer.

        Args:
            name: a folder, or a name that transformers knows.

        Raises:
            ImportError: transformers is not installed; the message says how to install it.
            OSError: there is no such tokenizer.
        """
        with optional_imports():
            from transformers import AutoTokenizer

        register_systems()
        return cls(AutoTokenizer.from_pretrained(name))

    def __call__(self, words: list[str]) -> list[str]:
        """Returns what the tokenizer makes of each word, special tokens left out.

        Args:
            words: lower-case words.
        """
        known = self._known
        new = [word for word in dict.fromkeys(words) if word not in known]
        if new:
            if len(known) + len(new) > _LIMIT:
                known.clear()
                new = list(dict.fromkeys(words))
            known.update(zip(new, self._round_trip(new), strict=True))
        return [known[word] for word in words]

    def _round_trip(self, words: list[str]) -> list[str]:
        if self._backend is None:
            ids = self._tokenizer(words)["input_ids"]
            texts: list[str] = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        else:
            texts = self._whole_round_trip(words)
        return texts

    def _whole_round_trip(self, words: list[str]) -> list[str]:
        """Returns round trips without the padding and truncation that the tokenizer may have."""
        backend = self._backend
        padding, truncation = backend.padding, backend.truncation
        backend.no_padding()
        backend.no_truncation()
        try:
            encoded = backend.encode_batch_fast(words)
            texts: list[str] = backend.decode_batch([encoding.ids for encoding in encoded])
        finally:
            if padding is not None:
                backend.enable_padding(**padding)
            if truncation is not None:
                backend.enable_truncation(**truncation)
        return texts
