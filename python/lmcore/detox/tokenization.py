"""Tokenizers of segments: BERT's, from its vocabulary file or a file of the library `tokenizers`.

They say for each token where it stands in the text as it was given, and write ids as text in the
way of the released code.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmcore._extras import optional_imports
from lmcore._json import read_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROLES = {"start": "[CLS]", "end": "[SEP]", "pad": "[PAD]", "unknown": "[UNK]", "mask": "[MASK]"}
_FILE, _VOCABULARY = "tokenizer.json", "vocab.txt"
# What stands beside the tokens before it, in the order in which the released code looks for it.
_TIDY = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"),
    (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


class Tokens(NamedTuple):
    """The tokens of a text, without those before and behind it."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """Of each token where it stands in the text, in characters, half-open."""


@dataclass(kw_only=True, slots=True, frozen=True)
class SegmentTokenizer:
    """A tokenizer, and the ids of its special tokens."""

    tokenizer: Any
    """Of the library `tokenizers`."""
    start: int
    """Id of `[CLS]`."""
    end: int
    """Id of `[SEP]`."""
    pad: int
    """Id of `[PAD]`."""
    unknown: int
    """Id of `[UNK]`."""
    mask: int
    """Id of `[MASK]`."""
    first: list[str]
    """Of each id what it is at the begin of a text."""
    raw: list[str]
    """Of each id what it is behind another one, with the space between both if there is one."""
    later: list[str]
    """The same, tidied."""
    special: frozenset[int]
    """Ids of special tokens."""
    apart: NDArray[np.bool_]
    """Of each id whether it needs a look at its neighbours: a special one, or an apostrophe."""

    @property
    def backend_tokenizer(self) -> Any:
        """The same under the name that transformers has for it."""
        return self.tokenizer

    @property
    def vocabulary_size(self) -> int:
        """Ids are below it."""
        return int(max(self.tokenizer.get_vocab(with_added_tokens=True).values())) + 1

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Returns the tokens of texts, whatever their length.

        Args:
            texts: in any number.

        Example:
            >>> tokenizer = make_tokenizer(["a", "##b"])
            >>> tokenizer.encode(["A ab"])
            [Tokens(ids=[5, 5, 6], offsets=[(0, 1), (2, 3), (3, 4)])]
        """
        found = self.tokenizer.encode_batch([*texts], add_special_tokens=False)
        return [Tokens(encoded.ids, encoded.offsets) for encoded in found]

    def find_ids(self, tokens: Iterable[str]) -> list[int]:
        """Returns the ids of tokens; that of `[UNK]` for those which the vocabulary lacks.

        Args:
            tokens: with `##` where they go on.
        """
        ids = map(self.tokenizer.token_to_id, tokens)
        return [self.unknown if found is None else found for found in ids]

    def decode(
        self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool = False
    ) -> list[str]:
        """Returns the texts of rows of ids as BERT writes them: no space before `.`, `?` and such.

        Args:
            rows: ids of the vocabulary, in any number of rows.
            skip_special_tokens: whether `[UNK]` and the like stay out.

        Example:
            >>> tokenizer = make_tokenizer(["a", "##b", "?"])
            >>> tokenizer.decode([[5, 6, 7], [6, 5], [5, 4]])
            ['ab?', '##b a', 'a [MASK]']
        """
        first, raw, special = self.first, self.raw, self.special
        texts = []
        for row in rows:
            ids = [token for token in row if token not in special] if skip_special_tokens else row
            begin = first[ids[0]] if len(ids) else ""
            texts.append(tidy(begin + "".join([raw[token] for token in ids[1:]])))
        return texts

    def decode_segments(
        self, segments: NDArray[np.int64], *, skip_special_tokens: bool = False
    ) -> list[str]:
        """Returns what `decode` does for rows of one length, in a tenth of the time.

        Args:
            segments: `[D, n]` int64, ids of the vocabulary; n is at least 1.
            skip_special_tokens: as for `decode`.

        Example:
            >>> import numpy as np
            >>> tokenizer = make_tokenizer(["a", "##b", "?"])
            >>> tokenizer.decode_segments(np.array([[5, 6], [5, 7]]))
            ['ab', 'a?']
        """
        later, (begin, *rest) = self.later, segments.T.tolist()
        texts = [*map(self.first.__getitem__, begin)]
        for column in rest:
            texts = [text + later[token] for text, token in zip(texts, column, strict=True)]
        places = np.flatnonzero(self.apart[segments].any(1)).tolist()
        rows = segments[places].tolist()
        found = self.decode(rows, skip_special_tokens=skip_special_tokens)
        for place, text in zip(places, found, strict=True):
            texts[place] = text
        return texts

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `tokenizer.json` into a folder.

        Args:
            folder: where to.
        """
        self.tokenizer.save(str(Path(folder, _FILE)))


def tidy(text: str) -> str:
    """Returns a text without spaces before punctuation and English endings, as the authors have it.

    Args:
        text: tokens with spaces between them.

    Example:
        >>> tidy("it 's up , is n't it ?")
        "it's up, isn't it?"
    """
    for spaced, joined in _TIDY:
        if spaced in text:
            text = text.replace(spaced, joined)
    return text


def load_tokenizer(path: str | os.PathLike[str]) -> SegmentTokenizer:
    r"""Returns the tokenizer of a file or of a folder.

    Args:
        path: BERT's vocabulary file, one token in each line (`.txt`); a file of the library
            `tokenizers`; or a folder that holds `tokenizer.json`, else `vocab.txt`. Texts are made
            lower-case for a vocabulary, unless a `tokenizer_config.json` beside it says otherwise.

    Raises:
        ImportError: the library `tokenizers` is not installed.
        OSError: the file cannot be read.
        ValueError: it is no tokenizer, or lacks a special token of BERT.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
        ...     load_tokenizer(folder).vocabulary_size
        6
    """
    with optional_imports():
        from tokenizers import Tokenizer

    file = Path(path)
    if file.is_dir():
        file = next((file / n for n in (_FILE, _VOCABULARY) if (file / n).is_file()), file / _FILE)
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 at byte {error.start + 1}") from None
    try:
        if file.suffix == ".txt":
            return _make(text.splitlines(), lowercase=_is_lowercase(file))
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises this class itself
            raise ValueError(f"not a file of tokenizers: {error!s:.200}") from None
        return _wrap(tokenizer)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def make_tokenizer(tokens: Sequence[str], *, lowercase: bool = True) -> SegmentTokenizer:
    """Returns BERT's tokenizer of some tokens, with its special ones before them.

    Args:
        tokens: the rest of the vocabulary.
        lowercase: whether texts are made lower-case, and accents taken off.

    Raises:
        ImportError: the library `tokenizers` is not installed.
        ValueError: a token stands there twice, or is empty.

    Example:
        >>> make_tokenizer(["a"]).mask
        4
    """
    special = [_ROLES[role] for role in ("pad", "unknown", "start", "end", "mask")]
    return _make([*special, *tokens], lowercase=lowercase)


def _make(tokens: Sequence[str], *, lowercase: bool) -> SegmentTokenizer:
    with optional_imports():
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    ids: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if not token.strip():
            raise ValueError(f"line {number + 1} holds no token")
        if ids.setdefault(token, number) != number:
            raise ValueError(f"{token!r:.60} stands in line {ids[token] + 1} and {number + 1}")
    tokenizer = Tokenizer(models.WordPiece(vocab=ids, unk_token=_ROLES["unknown"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([token for token in _ROLES.values() if token in ids])
    return _wrap(tokenizer)


def _wrap(tokenizer: Any) -> SegmentTokenizer:
    # A text is never cut or filled up in silence.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = {role: tokenizer.token_to_id(token) for role, token in _ROLES.items()}
    missing = [_ROLES[role] for role, found in ids.items() if found is None]
    if missing:
        raise ValueError(f"there is no token {missing[0]}")
    pieces = tokenizer.get_vocab(with_added_tokens=True)
    first = [""] * (max(pieces.values()) + 1)
    for piece, number in pieces.items():
        first[number] = piece
    raw = [piece[2:] if piece.startswith("##") else f" {piece}" for piece in first]
    special = frozenset(tokenizer.get_added_tokens_decoder())
    apart = np.array(["'" in piece for piece in first])
    apart[[*special]] = True
    return SegmentTokenizer(
        tokenizer=tokenizer, first=first, raw=raw, later=[*map(tidy, raw)], special=special,
        apart=apart, **ids,
    )  # fmt: skip


def _is_lowercase(vocabulary: Path) -> bool:
    settings = vocabulary.with_name("tokenizer_config.json")
    if not settings.is_file():
        return True
    content = read_json(settings, "settings of a tokenizer")
    return not (isinstance(content, dict) and content.get("do_lower_case") is False)
