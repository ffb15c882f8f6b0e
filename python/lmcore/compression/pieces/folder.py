"""The tokenizer of a model's folder, in all files that say it.

A folder may say the same tokens several times: `tokenizer.json`, `vocab.txt`, `vocab.json` and
`merges.txt`, a SentencePiece model, and the ids of added tokens in `tokenizer_config.json` and
`added_tokens.json`. All are written anew, so that none of them names an id of before. Where there
is no `tokenizer.json`, transformers reads the others and says what they mean.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmcore._extras import optional_imports
from lmcore._files import whole_file, write_text
from lmcore._json import parse_json, read_json
from lmcore._text import find_reason
from lmcore.compression.pieces.json_file import TokenizerFile
from lmcore.compression.pieces.sentencepiece_file import read_piece_file, write_pruned_pieces
from lmcore.compression.pieces.table import PieceTable
from lmcore.openba.protobuf import PieceKind

_TOKENIZER, _SETTINGS, _ADDED = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
# Files without ids that belong to a tokenizer.
_PLAIN = ("special_tokens_map.json", "chat_template.jinja", "chat_template.json")


class TokenizerFolder:
    """The tokenizer of a model's folder.

    Args:
        path: the folder.

    Attributes:
        table: its tokens.

    Raises:
        ImportError: there is no `tokenizer.json`, and transformers is not installed.
        OSError: a file cannot be read.
        ValueError: there is no tokenizer that can be pruned; the text names the file.

    Example:
        >>> import tempfile
        >>> from lmcore.openba import OpenBATokenizer
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pieces = Path(folder, "spiece.model")
        ...     size = write_piece_file(pieces)
        ...     _ = OpenBATokenizer(pieces).save_pretrained(folder)
        ...     tokenizer = TokenizerFolder(folder)
        >>> len(tokenizer.table) - size, tokenizer.table.texts[-3:]
        (103, ['<R>', '<S>', '<X>'])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        file = self.path / _TOKENIZER
        if file.is_file():
            self._file = TokenizerFile(file)
        else:
            backend = getattr(load_tokenizer(path), "backend_tokenizer", None)
            if backend is None:
                raise ValueError(
                    f"{self.path}: its tokenizer is of none of the kinds that are read"
                )
            self._file = TokenizerFile(self.path, parse_json(backend.to_str()))
        self.table: PieceTable = self._file.table
        self._check_added()

    def write_pruned(self, folder: str | os.PathLike[str], new_ids: Mapping[int, int]) -> list[str]:
        """Writes all files of the tokenizer with some of its tokens, and returns their names.

        Args:
            folder: where to write.
            new_ids: of the tokens that stay, by the old ones, in the same order.

        Raises:
            OSError: a file cannot be read or written.
            ValueError: a file does not hold what it should, or a token goes that one of them
                names.
        """
        target = Path(folder)
        written: list[str] = []
        for name, write in self._list_writers(new_ids):
            if (self.path / name).is_file():
                write(self.path / name, target / name)
                written.append(name)
        for name in _PLAIN:
            if (self.path / name).is_file():
                with whole_file(target / name) as place:
                    shutil.copyfile(self.path / name, place)
                written.append(name)
        return written

    def _list_writers(self, new_ids: Mapping[int, int]) -> list[tuple[str, Any]]:
        kept = {
            text for text, i in zip(self.table.texts, self.table.ids.tolist(), strict=True)
            if i in new_ids
        }  # fmt: skip
        models = sorted(file.name for file in self.path.glob("*.model"))
        return [
            (_TOKENIZER, lambda _, target: self._file.write_pruned(target, new_ids)),
            ("vocab.txt", lambda source, target: _prune_lines(source, target, kept)),
            ("vocab.json", lambda source, target: _prune_ids(source, target, new_ids)),
            (_ADDED, lambda source, target: _prune_ids(source, target, new_ids)),
            ("merges.txt", lambda source, target: _prune_merges(source, target, kept)),
            (_SETTINGS, lambda source, target: _prune_settings(source, target, new_ids)),
            *(
                (name, lambda source, target: _prune_pieces(source, target, kept))
                for name in models
            ),
        ]

    def _check_added(self) -> None:
        """Marks tokens that the other files add, and refuses those that no file has."""
        for name, texts in self._list_added():
            for text, number in texts.items():
                found = self.table.find_id(text)
                if found != number:
                    raise ValueError(
                        f"{self.path / name}: the token {text!r:.60} has the id {number} there, "
                        f"and {found} in {_TOKENIZER}"
                    )
                place = self.table.index_by_text[text]
                if self.table.kinds[place] == PieceKind.NORMAL:
                    self.table.kinds[place] = PieceKind.CONTROL

    def _list_added(self) -> list[tuple[str, dict[str, int]]]:
        found: list[tuple[str, dict[str, int]]] = []
        if (self.path / _ADDED).is_file():
            found.append((_ADDED, _read_ids(self.path / _ADDED)))
        if (self.path / _SETTINGS).is_file():
            settings = _read_settings(self.path / _SETTINGS)
            added = settings.get("added_tokens_decoder") or {}
            found.append((_SETTINGS, {token["content"]: int(i) for i, token in added.items()}))
        return found


def load_tokenizer(folder: str | os.PathLike[str]) -> Any:
    """Returns the tokenizer of a folder as transformers loads it; nothing is fetched or run.

    Args:
        folder: of a model.

    Raises:
        ImportError: transformers is not installed.
        ValueError: it is no tokenizer that can be loaded; the text names the folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_tokenizer(folder)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: ...: not a tokenizer that can be loaded: ...
    """
    with optional_imports():
        from transformers import AutoTokenizer

        import lmcore.openba  # noqa: F401  (its classes are registered)
    try:
        return AutoTokenizer.from_pretrained(
            os.fspath(folder), local_files_only=True, trust_remote_code=False
        )
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # a folder that is something else makes a loader fail in any way
        text = f"{os.fspath(folder)}: not a tokenizer that can be loaded: {find_reason(error)}"
        raise ValueError(text) from error


def _read_ids(path: Path) -> dict[str, int]:
    found = read_json(path, "a table of tokens and ids")
    if not isinstance(found, dict) or set(map(type, found.values())) - {int}:
        raise ValueError(f"{path}: not a table of tokens and ids")
    return found


def _read_settings(path: Path) -> dict[str, Any]:
    found = read_json(path, "the settings of a tokenizer")
    added = found.get("added_tokens_decoder", {}) if isinstance(found, dict) else None
    good = isinstance(added, dict) and all(
        number.isascii() and number.isdigit() and len(number) < 19
        and isinstance(token, dict) and isinstance(token.get("content"), str)
        for number, token in added.items()
    )  # fmt: skip
    if not good:
        raise ValueError(f"{path}: not the settings of a tokenizer: its added tokens have no ids")
    return dict(found)


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def _prune_ids(source: Path, target: Path, new_ids: Mapping[int, int]) -> None:
    ids = _read_ids(source)
    _write_json(target, {text: new_ids[i] for text, i in ids.items() if i in new_ids})


def _prune_settings(source: Path, target: Path, new_ids: Mapping[int, int]) -> None:
    settings = _read_settings(source)
    if "added_tokens_decoder" in settings:
        settings["added_tokens_decoder"] = {
            str(new_ids[int(number)]): token
            for number, token in settings["added_tokens_decoder"].items()
        }
    _write_json(target, settings)


def _prune_lines(source: Path, target: Path, kept: set[str]) -> None:
    """A token a line; only line feeds end lines, whatever else a token holds."""
    lines = source.read_bytes().split(b"\n")
    texts = [line.removesuffix(b"\r").decode("utf-8", "surrogateescape") for line in lines]
    pairs = zip(texts, lines, strict=True)
    with whole_file(target) as place:
        place.write_bytes(b"".join(line + b"\n" for text, line in pairs if text in kept))


def _prune_merges(source: Path, target: Path, kept: set[str]) -> None:
    parts = []
    for number, line in enumerate(source.read_bytes().split(b"\n")):
        pair = line.removesuffix(b"\r").decode("utf-8", "surrogateescape").split(" ")
        is_head = number == 0 and line.startswith(b"#version")
        if is_head or (len(pair) == 2 and {*pair, "".join(pair)} <= kept):
            parts.append(line + b"\n")
    with whole_file(target) as place:
        place.write_bytes(b"".join(parts))


def _prune_pieces(source: Path, target: Path, kept: set[str]) -> None:
    file = read_piece_file(source)
    texts, _, kinds = file.columns
    stays = np.fromiter((text in kept for text in texts), bool, len(texts))
    write_pruned_pieces(file, target, np.flatnonzero(stays | (kinds != PieceKind.NORMAL)))
