"""The tokenizer of OpenBA: pieces of text, sentinels, and the prefixes of its denoisers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmcore._extras import optional_imports
from lmcore._text import find_reason
from lmcore.openba.pieces import PieceFile

with optional_imports():
    from tokenizers import AddedToken, Tokenizer, processors
    from transformers import TokenizersBackend

PREFIXES = ("<R>", "<S>", "<X>")
"""Regular, sequential and extreme denoising."""
NEWLINE = ("\n",)
"""What the tokenizer of OpenBA-V2 has more."""
CODE = ("\t", "\n", "  ")
"""What that of OpenBA-V1-Code has more: tab, newline, spaces of an indent."""
_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"


class OpenBATokenizer(TokenizersBackend):
    """Tokens of a SentencePiece file, and behind them those that OpenBA adds.

    | ids, for the 250,100 pieces of mT5 | tokens |
    | --- | --- |
    | 0 to 250,099 | the pieces; 0 `<pad>`, 1 `</s>`, 2 `<unk>` |
    | 250,100 to 250,199 | sentinels downward: `<extra_id_99>` first, `<extra_id_0>` last |
    | 250,200 to 250,202 | `<R>`, `<S>`, `<X>` |
    | from 250,203 on | `extra_tokens` |

    A text between two of these tokens is segmented by itself, as by the authors. Encoding ends a
    text with `</s>`, as T5's does. A model file without `<pad>` gets it behind the other tokens.

    Args:
        vocab_file: a SentencePiece file; what `lmcore.openba.pieces.PieceFile` reads.
        tokenizer_file: a file of tokenizers instead, as `save_pretrained` writes it.
        extra_ids: number of sentinels.
        prefixes: special tokens that say how a text is denoised.
        extra_tokens: more tokens, which stand for text: `NEWLINE`, `CODE`, or others.
        kwargs: as for transformers' tokenizers.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no SentencePiece model, or lacks `</s>`.

    Example:
        >>> import tempfile
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "spiece.model")
        ...     _ = write_piece_file(file)
        ...     tokenizer = OpenBATokenizer(file)
        >>> ids = tokenizer("<S> Ada met <extra_id_0>")["input_ids"]
        >>> tokenizer.convert_ids_to_tokens(ids)
        ['<S>', '▁Ada', '▁met', '<extra_id_0>', '</s>']
        >>> ids[0] - ids[3], tokenizer.padded_size() % 128
        (2, 0)

    Source: OpenBA (arXiv 2309.10706), its released tokenizers; specification section 4.
    """

    vocab_files_names = {"vocab_file": "spiece.model", "tokenizer_file": "tokenizer.json"}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        vocab_file: str | os.PathLike[str] | None = None,
        *,
        tokenizer_file: str | None = None,
        extra_ids: int = 100,
        prefixes: Sequence[str] = PREFIXES,
        extra_tokens: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        if not 0 <= extra_ids <= 10_000:
            raise ValueError(f"extra_ids must be from 0 to 10000: got {extra_ids}")
        if tokenizer_file is None and vocab_file is None:
            raise ValueError("expected spiece.model or tokenizer.json, got neither")
        self._vocab_file = None if vocab_file is None else Path(vocab_file)
        if tokenizer_file is not None:
            backend = Tokenizer.from_file(tokenizer_file)
        else:
            backend = _make_backend(PieceFile(vocab_file or ""), extra_ids, prefixes, extra_tokens)
        # Names of special tokens, and no others: what stands for text keeps its id.
        kwargs.pop("extra_special_tokens", None)
        added = kwargs.pop("added_tokens_decoder", {})
        _add_missing(backend, added)
        for name in ("bos_token", "vocab", "merges", "sp_model_kwargs", "post_processor"):
            kwargs.pop(name, None)
        kwargs.setdefault("pad_token", _PAD)
        kwargs.setdefault("eos_token", _END)
        kwargs.setdefault("unk_token", _UNKNOWN)
        super().__init__(  # type: ignore[no-untyped-call]
            tokenizer_object=backend,
            extra_ids=extra_ids,
            prefixes=list(prefixes),
            extra_tokens=list(extra_tokens),
            extra_special_tokens=[*_name_sentinels(extra_ids), *prefixes],
            **kwargs,
        )

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> Any:
        """Returns the arguments as they are: this class reads both kinds of files itself.

        Args:
            trust_remote_code: of no meaning here.
            kwargs: the arguments.
        """
        return kwargs

    @classmethod
    def _patch_mistral_regex(cls, tokenizer: Any, *arguments: Any, **options: Any) -> Any:
        # The pipeline is not Mistral's, and whether it is would be asked of the network.
        return tokenizer

    @property
    def sentinel_ids(self) -> list[int]:
        """The ids of `<extra_id_0>`, `<extra_id_1>` and so on: each one less than the last."""
        names = _name_sentinels(self.init_kwargs["extra_ids"])
        return [self._find_id(name) for name in names]

    @property
    def prefix_ids(self) -> dict[str, int]:
        """The ids of the prefixes by their names."""
        names = self.init_kwargs["prefixes"]
        return {name: self._find_id(name) for name in names}

    def _find_id(self, name: str) -> int:
        found = self.backend_tokenizer.token_to_id(name)
        assert found is not None
        return int(found)

    def padded_size(self, tensor_parallel: int = 1) -> int:
        """Returns the number of rows of the embedding: a multiple of 128 for each part of it.

        Args:
            tensor_parallel: how many devices share the embedding.

        Raises:
            ValueError: that is less than 1.
        """
        if tensor_parallel < 1:
            raise ValueError(f"tensor_parallel must be at least 1: got {tensor_parallel}")
        multiple = 128 * tensor_parallel
        return -(-len(self) // multiple) * multiple

    def _save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        file_names: tuple[str, ...],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        # The SentencePiece file goes along: the authors' class reads nothing else.
        names = super()._save_pretrained(
            str(save_directory), file_names, legacy_format, filename_prefix
        )
        if self._vocab_file is None or not self._vocab_file.is_file():
            return names
        prefix = "" if filename_prefix is None else f"{filename_prefix}-"
        target = Path(save_directory, prefix + self.vocab_files_names["vocab_file"])
        if not (target.exists() and target.samefile(self._vocab_file)):
            shutil.copyfile(self._vocab_file, target)
        return (*names, str(target))


def load_tokenizer(name: str | os.PathLike[str]) -> OpenBATokenizer:
    """Returns the tokenizer of a SentencePiece file, or of a folder; nothing is fetched.

    Args:
        name: the file, or a folder with `spiece.model` or `tokenizer.json`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no tokenizer that can be loaded; the text names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_tokenizer(folder)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: ...: not a tokenizer that can be loaded: expected spiece.model or ...
    """
    if not Path(name).is_dir():
        return OpenBATokenizer(name)
    try:
        found: OpenBATokenizer = OpenBATokenizer.from_pretrained(name, local_files_only=True)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # a folder that is something else makes a loader fail in any way
        text = f"{os.fspath(name)}: not a tokenizer that can be loaded: {find_reason(error)}"
        raise ValueError(text) from error
    return found


def _name_sentinels(count: int) -> list[str]:
    return [f"<extra_id_{number}>" for number in range(count)]


def _make_backend(
    file: PieceFile, extra_ids: int, prefixes: Sequence[str], extra_tokens: Sequence[str]
) -> Any:
    """The pipeline of a file, with the added tokens behind its pieces."""
    backend = file.to_tokenizer()
    unknown = file.pieces[file.unknown_id].text
    if unknown != _UNKNOWN:
        raise ValueError(f"{file.name}: expected the piece {_UNKNOWN!r}, got {unknown!r:.60}")
    if backend.token_to_id(_END) is None:
        raise ValueError(f"{file.name}: it has no piece {_END!r}, which ends a text")
    # Downward, so that the first sentinel has the highest id.
    names = [_END, _UNKNOWN, *reversed(_name_sentinels(extra_ids)), *prefixes]
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    _add_texts(backend, extra_tokens)
    backend.add_special_tokens([AddedToken(_PAD, special=True, normalized=False)])
    end = (_END, backend.token_to_id(_END))
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", pair=f"$A {_END} $B {_END}", special_tokens=[end]
    )
    return backend


def _add_texts(backend: Any, texts: Sequence[str]) -> None:
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in texts])


def _add_missing(backend: Any, added: dict[int, Any]) -> None:
    """Adds tokens that a folder names besides, each with the id that it has there."""
    for number, token in sorted(added.items()):
        name = str(token)
        if backend.token_to_id(name) is None:
            special = bool(getattr(token, "special", False))
            add = backend.add_special_tokens if special else backend.add_tokens
            add([AddedToken(name, special=special, normalized=False)])
        found = backend.token_to_id(name)
        if found != number:
            raise ValueError(f"the token {name!r:.60} has the id {number} there, expected {found}")
