"""Ids of tokens that the settings of a model name: where they stand, and which are new.

`config.json` and `generation_config.json` name tokens by ids: of padding, of ends, of an image,
those that are forced or never generated. When tokens go, all of them get new ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# `pad_token_id`, `eos_token_id` (which may be a list), `image_token_index` and their like.
_NAMED = re.compile(r"(.*_)?token_(id|ids|index|idx)|(lang|task)_to_id")
# What must be generated; the first numbers of its pairs are places.
_PAIRS = "forced_decoder_ids"
_FORCED = "force_words_ids"
# What is left out of a text: where a token is gone, that is done.
_AVOIDED_TOKENS = ("suppress_tokens", "begin_suppress_tokens")
_AVOIDED_WORDS = "bad_words_ids"
_BIASES = "sequence_bias"


def list_token_ids(settings: Mapping[str, Any]) -> set[int]:
    """Returns the ids that settings name and that must stay tokens.

    Tokens that are only kept out of a text are none of them.

    Args:
        settings: of a model or of its generation, parts of parts included.

    Example:
        >>> settings = {"eos_token_id": [1, 5], "text_config": {"pad_token_id": 0}}
        >>> sorted(list_token_ids({**settings, "suppress_tokens": [7], "num_layers": 9}))
        [0, 1, 5]
    """
    found: set[int] = set()

    def note(number: int) -> int:
        found.add(number)
        return number

    _change(settings, note, lambda number: number)
    return {number for number in found if number >= 0}


def renumber_settings(
    settings: Mapping[str, Any], new_ids: Mapping[int, int], rows: int
) -> dict[str, Any]:
    """Returns settings with new ids in place of the old ones.

    An id that is negative stays: it means no token. One that the embedding does not have becomes
    None: it meant none either, and could be one of the new model's. Words that are kept out of a
    text go with their tokens.

    Args:
        settings: of a model or of its generation.
        new_ids: of the tokens that stay, by the old ones.
        rows: of the embedding.

    Raises:
        ValueError: a token goes that must stay.

    Example:
        >>> settings = {"eos_token_id": [1, 5], "bad_words_ids": [[2], [5, 1]], "d_model": 5}
        >>> renumber_settings(settings, {1: 0, 5: 1}, 6)
        {'eos_token_id': [0, 1], 'bad_words_ids': [[1, 0]], 'd_model': 5}
    """

    def renumber(number: int) -> int | None:
        if number < 0:
            return number
        if number >= rows:
            return None
        if number not in new_ids:
            raise ValueError(f"the settings of the model name the token {number}, which goes")
        return new_ids[number]

    return _change(settings, renumber, new_ids.get)


def find_missing(
    stated: Mapping[str, Any], complete: Mapping[str, Any], changed: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns settings with the values that a file leaves out and that are other ones now.

    What a file does not state has a default, such as the id of an end: it must be stated when the
    id is a new one.

    Args:
        stated: what the file states, already with new values.
        complete: all settings with their old values.
        changed: all settings with their new values.

    Example:
        >>> find_missing({"n": 1}, {"n": 1, "eos_token_id": 9}, {"n": 1, "eos_token_id": 3})
        {'n': 1, 'eos_token_id': 3}
    """
    result = dict(stated)
    for name, value in changed.items():
        if isinstance(value, dict) and isinstance(complete.get(name), dict):
            part = find_missing(stated.get(name) or {}, complete[name], value)
            if part or name in stated:
                result[name] = part
        elif name not in stated and value != complete.get(name):
            result[name] = value
    return result


Change = Callable[[int], int | None]


def _change(settings: Mapping[str, Any], must: Change, may: Change) -> dict[str, Any]:
    """Settings with every id changed: those that must stay, and those that may go."""
    return {
        name: _change_value(name, value, must, may) if isinstance(name, str) else value
        for name, value in settings.items()
    }


def _change_value(name: str, value: Any, must: Change, may: Change) -> Any:
    if name == _PAIRS and isinstance(value, list):
        return [
            [pair[0], must(pair[1])]
            if isinstance(pair, list) and len(pair) == 2 and _is_id(pair[1])
            else pair
            for pair in value
        ]
    if name in _AVOIDED_TOKENS and isinstance(value, list):
        return [new for old in value if _is_id(old) and (new := may(old)) is not None]
    if name == _AVOIDED_WORDS and isinstance(value, list):
        words = (_change_all(word, may) for word in value)
        return [word for word in words if None not in _flatten(word)]
    if name == _BIASES and isinstance(value, list):
        pairs = (pair for pair in value if isinstance(pair, list) and len(pair) == 2)
        biases = ([_change_all(word, may), bias] for word, bias in pairs)
        return [pair for pair in biases if None not in _flatten(pair[0])]
    if _NAMED.fullmatch(name) or name == _FORCED:
        return _change_all(value, must)
    if isinstance(value, dict):
        return _change(value, must, may)
    return value


def _change_all(value: Any, change: Change) -> Any:
    if isinstance(value, list):
        return [_change_all(other, change) for other in value]
    if isinstance(value, dict):
        return {name: _change_all(other, change) for name, other in value.items()}
    return change(value) if _is_id(value) else value


def _flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for other in value:
            yield from _flatten(other)
    else:
        yield value


def _is_id(value: Any) -> bool:
    return type(value) is int
