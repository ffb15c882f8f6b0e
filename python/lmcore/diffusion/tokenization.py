"""Tokenizers of text diffusion: BERT's vocabulary file, or any file of the library `tokenizers`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcore._extras import optional_imports

# What tokens of each role are called; the first name that a vocabulary has is taken.
_ROLES = {
    "start": ("[CLS]", "<s>", "<bos>", "<|startoftext|>"),
    "end": ("[SEP]", "</s>", "<eos>", "<|endoftext|>"),
    "pad": ("[PAD]", "<pad>", "<|pad|>"),
}
_UNKNOWN = ("[UNK]", "<unk>")
_FILE = "tokenizer.json"


@dataclass(kw_only=True, slots=True, frozen=True)
class TextTokenizer:
    """A tokenizer, and the tokens around and behind a text."""

    tokenizer: Any
    """Of the library `tokenizers`."""
    start: int
    """Id of the token before a text, `[CLS]`."""
    end: int
    """Id of the token behind it, `[SEP]`."""
    pad: int
    """Id of the token that fills up, `[PAD]`."""
    unknown: int | None
    """Id of the token for what has no other, `[UNK]`; None where each text has tokens."""

    @property
    def backend_tokenizer(self) -> Any:
        """The same under the name that transformers has for it."""
        return self.tokenizer

    @property
    def vocabulary_size(self) -> int:
        """Ids are below it."""
        return int(max(self.tokenizer.get_vocab(with_added_tokens=True).values())) + 1

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of texts, without a token before or behind them.

        Args:
            texts: in any number.

        Example:
            >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##b"])
            >>> tokenizer.encode_batch(["A ab", "c"])
            [[4, 4, 5], [1]]
        """
        found = self.tokenizer.encode_batch([*texts], add_special_tokens=False)
        return [encoded.ids for encoded in found]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Returns the text of ids, without the padding behind it.

        Args:
            ids: the ids.
            skip_special_tokens: whether `[CLS]` and `[SEP]` stay out; the authors write them.

        Example:
            >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##b"])
            >>> tokenizer.decode([2, 4, 5, 3, 0, 0])
            '[CLS] ab [SEP]'
        """
        end = len(ids)
        while end and ids[end - 1] == self.pad:
            end -= 1
        kept = [*ids[:end]]
        return str(self.tokenizer.decode(kept, skip_special_tokens=skip_special_tokens))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `tokenizer.json` into a folder.

        Args:
            folder: where to.
        """
        self.tokenizer.save(str(Path(folder, _FILE)))


def load_tokenizer(path: str | os.PathLike[str], *, lowercase: bool = True) -> TextTokenizer:
    r"""Returns the tokenizer of a file or of a folder.

    Args:
        path: BERT's vocabulary file, one token in each line (`.txt`); a file of the library
            `tokenizers`; or a folder that holds `tokenizer.json`, else `vocab.txt`.
        lowercase: whether texts are made lower-case for a vocabulary file; another file says so
            itself.

    Raises:
        ImportError: the library `tokenizers` is not installed.
        OSError: the file cannot be read.
        ValueError: it is no tokenizer, or has no token that begins, ends or fills up a text.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
        ...     load_tokenizer(folder).vocabulary_size
        5
    """
    with optional_imports():
        from tokenizers import Tokenizer

    file = Path(path)
    if file.is_dir():
        file = next((file / n for n in (_FILE, "vocab.txt") if (file / n).is_file()), file / _FILE)
    content = file.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 at byte {error.start + 1}") from None
    if file.suffix == ".txt":
        try:
            return make_bert_tokenizer(text.splitlines(), lowercase=lowercase)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises this class itself
        raise ValueError(f"{file}: not a file of tokenizers: {error!s:.200}") from None
    try:
        return _wrap(tokenizer)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def make_bert_tokenizer(tokens: Sequence[str], *, lowercase: bool = True) -> TextTokenizer:
    """Returns BERT's tokenizer of a vocabulary.

    Args:
        tokens: in the order of their ids.
        lowercase: whether texts are made lower-case, and accents taken off.

    Raises:
        ImportError: the library `tokenizers` is not installed.
        ValueError: a token stands there twice or is empty, or one of `[PAD]`, `[UNK]`, `[CLS]` and
            `[SEP]` is missing.

    Example:
        >>> make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "é"], lowercase=False).pad
        0
    """
    with optional_imports():
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    ids: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if not token.strip():
            raise ValueError(f"line {number + 1} holds no token")
        if ids.setdefault(token, number) != number:
            raise ValueError(f"{token!r:.60} stands in line {ids[token] + 1} and {number + 1}")
    if _UNKNOWN[0] not in ids:
        raise ValueError(f"there is no token {_UNKNOWN[0]}")
    model = models.WordPiece(vocab=ids, unk_token=_UNKNOWN[0], max_input_chars_per_word=100)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = [names[0] for names in (*_ROLES.values(), _UNKNOWN) if names[0] in ids]
    tokenizer.add_special_tokens(special)
    return _wrap(tokenizer)


def _wrap(tokenizer: Any) -> TextTokenizer:
    # A text is never cut or filled up in silence.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = {}
    for role, names in _ROLES.items():
        found = next((n for n in names if tokenizer.token_to_id(n) is not None), None)
        if found is None:
            raise ValueError(f"there is no token {' or '.join(names)}, which {_WHAT[role]} a text")
        ids[role] = tokenizer.token_to_id(found)
    known = [tokenizer.token_to_id(name) for name in _UNKNOWN]
    unknown = next((number for number in known if number is not None), None)
    return TextTokenizer(tokenizer=tokenizer, unknown=unknown, **ids)


_WHAT = {"start": "begins", "end": "ends", "pad": "fills up"}
