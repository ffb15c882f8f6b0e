"""Files `tokenizer.json` with fewer tokens: Unigram, BPE, WordPiece and WordLevel.

The tokens that stay keep their order and get new ids; merges stay where both parts and the result
do. All that names an id gets the new one: tokens that were added, templates around a text,
padding. What a text goes through before and after stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._files import whole_file
from lmcore._json import read_json
from lmcore.compression.pieces.merging import ListedMerges
from lmcore.compression.pieces.table import PieceTable
from lmcore.openba.protobuf import PieceKind

_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def make_byte_alphabet() -> str:
    """Returns the 256 characters that stand for bytes in BPE of bytes, as GPT-2 has them.

    Example:
        >>> alphabet = make_byte_alphabet()
        >>> len(set(alphabet)), alphabet[ord("a")], alphabet[ord(" ")]
        (256, 'a', 'Ġ')
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return "".join(chr(b if b in shown else 256 + hidden.index(b)) for b in range(256))


class TokenizerFile:
    """The content of a `tokenizer.json`.

    Args:
        path: the file.
        content: what it holds, if that comes from elsewhere; then only errors name the file.

    Attributes:
        content: what it holds.
        table: its tokens, the added ones included.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, or of another model; the text names the file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> model = {"type": "WordLevel", "vocab": {"[UNK]": 0, "b": 1, "a": 2}}
        >>> content = {"model": {**model, "unk_token": "[UNK]"}, "added_tokens": []}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder, "tokenizer.json")
        ...     _ = place.write_text(json.dumps(content))
        ...     file = TokenizerFile(place)
        ...     file.write_pruned(place, {0: 0, 2: 1})
        ...     TokenizerFile(place).table.texts
        ['[UNK]', 'a']
    """

    def __init__(self, path: str | os.PathLike[str], content: Any = None) -> None:
        self.name = os.fspath(path)
        if content is None:
            content = read_json(path, "a tokenizer.json")
        self.content: dict[str, Any] = content
        try:
            self._check()
            self.table = self._make_table()
        except _WrongFileError as error:
            raise ValueError(f"{self.name}: not a tokenizer.json: {error}") from None

    def write_pruned(self, path: str | os.PathLike[str], new_ids: Mapping[int, int]) -> None:
        """Writes the file with some of its tokens.

        Args:
            path: where to write; it may be the file itself.
            new_ids: of the tokens that stay, by the old ones, in the same order.

        Raises:
            OSError: the file cannot be written.
            ValueError: a token goes that something in the file names, or the ids of the Unigram
                model would have gaps.
        """
        content = dict(self.content)
        content["model"] = self._prune_model(new_ids)
        added = self.content.get("added_tokens") or []
        content["added_tokens"] = [
            {**token, "id": self._renumber(token["id"], new_ids)} for token in added
        ]
        for name in ("post_processor", "padding"):
            if content.get(name) is not None:
                content[name] = self._renumber_part(content[name], new_ids)
        # In one piece: `json.dump` would write each value by itself, which takes longer.
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        with whole_file(path) as target:
            target.write_bytes(text.encode("utf-8", "surrogatepass"))

    # Reading.

    def _check(self) -> None:
        """Checks the types of all that is used, so that nothing else has to."""
        if not isinstance(self.content, dict) or not isinstance(self.content.get("model"), dict):
            raise _WrongFileError("it holds no model")
        self._model: dict[str, Any] = self.content["model"]
        self._type = self._find_type()
        vocabulary = self._model.get("vocab")
        if self._type == "Unigram":
            self._texts, self._scores = _read_scores(vocabulary)
        elif not isinstance(vocabulary, dict) or set(map(type, vocabulary.values())) - {int}:
            raise _WrongFileError("its vocabulary is not a table of tokens and ids")
        for name in ("continuing_subword_prefix", "end_of_word_suffix"):
            if not isinstance(self._model.get(name), str | None):
                raise _WrongFileError(f"its {name} is {self._model[name]!r:.60}")
        if self._type == "BPE":
            self._pairs = _read_merges(self._model.get("merges"))
        added = self.content.get("added_tokens") or []
        is_list = isinstance(added, list) and all(
            isinstance(token, dict)
            and isinstance(token.get("content"), str)
            and type(token.get("id")) is int
            for token in added
        )
        if not is_list:
            raise _WrongFileError("its added tokens are not a list of contents and ids")

    def _find_type(self) -> str:
        """The model's type; files of old versions do not say it."""
        found = self._model.get("type")
        if found is None:
            is_list = isinstance(self._model.get("vocab"), list)
            found = "Unigram" if is_list else "BPE" if "merges" in self._model else "WordPiece"
        if found not in ("Unigram", "BPE", "WordPiece", "WordLevel"):
            raise _WrongFileError(f"a model of the type {found!r:.60}")
        return str(found)

    def _make_table(self) -> PieceTable:
        model = self._model
        if self._type == "Unigram":
            ids = dict(zip(self._texts, range(len(self._texts)), strict=True))
            if len(ids) < len(model["vocab"]):
                raise _WrongFileError("a piece stands twice in its vocabulary")
        else:
            ids = dict(model["vocab"])
        added = {token["content"]: token for token in self.content.get("added_tokens") or []}
        for text, token in added.items():
            if ids.setdefault(text, token["id"]) != token["id"]:
                raise _WrongFileError(
                    f"the token {text!r:.60} has the ids {ids[text]} and {token['id']}"
                )
        texts, numbers = _sort(ids)
        scores = None
        if self._type == "Unigram":
            scores = np.full(len(texts), np.nan)
            scores[: len(self._scores)] = self._scores
        try:
            table = PieceTable(
                algorithm=self._type.lower(),
                ids=numbers,
                texts=texts,
                kinds=np.full(len(texts), PieceKind.NORMAL, np.uint8),
                scores=scores,
                merges=self._make_merges() if self._type == "BPE" else None,
                prefix=model.get("continuing_subword_prefix") or "",
                takes_whole_words=bool(model.get("ignore_merges")),
            )
        except ValueError as error:
            raise _WrongFileError(str(error)) from None
        for text, kind in self._find_kinds(added).items():
            place = table.index_by_text.get(text)
            if place is not None:
                table.kinds[place] = kind
        return table

    def _make_merges(self) -> ListedMerges:
        prefix = self._model.get("continuing_subword_prefix") or ""
        suffix = self._model.get("end_of_word_suffix") or ""
        return ListedMerges(self._pairs, prefix=prefix, suffix=suffix)

    def _find_kinds(self, added: dict[str, Any]) -> dict[str, PieceKind]:
        """Kinds of texts that are not normal, whether they are tokens or not."""
        model = self._model
        unknown = model.get("unk_token")
        if self._type == "Unigram":
            place = model.get("unk_id")
            if place is not None and not (type(place) is int and 0 <= place < len(model["vocab"])):
                raise _WrongFileError(f"its unknown token has the id {place!r:.60}")
            unknown = None if place is None else model["vocab"][place][0]
        kinds: dict[str, PieceKind] = {}
        if model.get("byte_fallback"):
            kinds |= dict.fromkeys(_BYTES, PieceKind.BYTE)
        if _uses_bytes(self.content):
            kinds |= dict.fromkeys(make_byte_alphabet(), PieceKind.BYTE)
        for text, token in added.items():
            special = bool(token.get("special"))
            kinds[text] = PieceKind.CONTROL if special else PieceKind.USER_DEFINED
        if isinstance(unknown, str):
            kinds[unknown] = PieceKind.UNKNOWN
        return kinds

    # Writing.

    def _prune_model(self, new_ids: Mapping[int, int]) -> dict[str, Any]:
        model = dict(self._model)
        if self._type == "Unigram":
            kept = [i for i in range(len(model["vocab"])) if i in new_ids]
            if [new_ids[i] for i in kept] != list(range(len(kept))):
                raise ValueError(f"{self.name}: the new ids of its pieces must be without gaps")
            model["vocab"] = [model["vocab"][i] for i in kept]
            if model.get("unk_id") is not None:
                model["unk_id"] = self._renumber(model["unk_id"], new_ids)
            return model
        kept_ids = {text: new_ids[i] for text, i in model["vocab"].items() if i in new_ids}
        model["vocab"] = kept_ids
        if self._type == "BPE":
            skip = len(model.get("continuing_subword_prefix") or "")
            model["merges"] = [
                merge
                for merge, (left, right) in zip(model["merges"], self._pairs, strict=True)
                if left in kept_ids and right in kept_ids and left + right[skip:] in kept_ids
            ]
        return model

    def _renumber_part(self, part: Any, new_ids: Mapping[int, int]) -> Any:
        """A part of the pipeline with new ids wherever tokenizers has ids."""
        if isinstance(part, list):
            return [self._renumber_part(other, new_ids) for other in part]
        if not isinstance(part, dict):
            return part
        changed = {name: self._renumber_part(other, new_ids) for name, other in part.items()}
        for name, other in part.items():
            if name in ("id", "pad_id") and type(other) is int:
                changed[name] = self._renumber(other, new_ids)
            elif name == "ids" and isinstance(other, list):
                changed[name] = [self._renumber(number, new_ids) for number in other]
            elif name in ("sep", "cls") and isinstance(other, list) and len(other) == 2:
                changed[name] = [other[0], self._renumber(other[1], new_ids)]
        return changed

    def _renumber(self, number: Any, new_ids: Mapping[int, int]) -> int:
        found = new_ids.get(number) if type(number) is int else None
        if found is None:
            raise ValueError(f"{self.name}: it names the token {number!r:.60}, which does not stay")
        return found


class _WrongFileError(ValueError):
    """What is wrong with a file, without its name."""


def _sort(ids: dict[str, int]) -> tuple[list[str], NDArray[np.int64]]:
    """Texts and ids in the order of the ids."""
    texts = list(ids)
    try:
        numbers = np.fromiter(ids.values(), np.int64, len(ids))
    except OverflowError:
        raise _WrongFileError("an id is not below 2**63") from None
    if numbers.size and numbers.min() < 0:
        place = int(numbers.argmin())
        raise _WrongFileError(f"the token {texts[place]!r:.60} has the id {numbers[place]}")
    if (numbers[1:] < numbers[:-1]).any():
        order = numbers.argsort(kind="stable")
        texts, numbers = [texts[place] for place in order.tolist()], numbers[order]
    return texts, numbers


def _read_scores(vocabulary: Any) -> tuple[list[str], list[float]]:
    """Pieces and scores, checked all at once: files have hundreds of thousands of them."""
    is_list = isinstance(vocabulary, list) and set(map(type, vocabulary)) <= {list}
    if is_list and set(map(len, vocabulary)) <= {2}:
        texts = [pair[0] for pair in vocabulary]
        scores = [pair[1] for pair in vocabulary]
        if set(map(type, texts)) <= {str} and set(map(type, scores)) <= {int, float}:
            return texts, scores
    raise _WrongFileError("its vocabulary is not a list of pieces and scores")


def _read_merges(merges: Any) -> list[tuple[str, str]]:
    """Pairs of a list of pairs, or of texts with a space between, as older files have them."""
    if not isinstance(merges, list):
        raise _WrongFileError("its merges are not a list")
    pairs = [
        tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
        for merge in merges
        if isinstance(merge, str | list)
    ]
    good = len(pairs) == len(merges) and all(
        len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str) for pair in pairs
    )
    if not good:
        raise _WrongFileError("its merges are not pairs of pieces")
    return pairs  # type: ignore[return-value]


def _uses_bytes(content: Mapping[str, Any]) -> bool:
    """Whether a text becomes bytes before it is segmented."""
    return any(
        _holds_type(content.get(name), "ByteLevel") for name in ("normalizer", "pre_tokenizer")
    )


def _holds_type(part: Any, name: str) -> bool:
    if isinstance(part, list):
        return any(_holds_type(other, name) for other in part)
    if not isinstance(part, dict):
        return False
    return part.get("type") == name or any(_holds_type(other, name) for other in part.values())
