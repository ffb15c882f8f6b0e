"""Rows of JSONL files become sentences: ours, the authors', and entity lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmcore.ner.entity_lists import label_text, read_entities
from lmcore.ner.labels import LabelReader, check_types
from lmcore.ner.sentences import Sentence, make_sentence


class RowParser:
    """Reads rows, and counts what was repaired.

    Args:
        types: types that are added to those of each row.
        dataset: the name of the data set of rows without one.
    """

    def __init__(self, types: Sequence[str] = (), dataset: str = "") -> None:
        self.labels = LabelReader()
        self.cut_words = 0
        """Words that were cut at the edge of an entity."""
        self.types = types
        self.dataset = dataset

    def parse(
        self, row: Mapping[str, Any], found: Mapping[str, Sequence[str]] | None = None
    ) -> Sentence:
        """Returns the sentence of a row.

        Args:
            row: see `parse_sentence`.
            found: types by data set, for rows that name none.

        Raises:
            TypeError: a value has another type.
            ValueError: a key is missing, or a value cannot be used.
        """
        dataset = self.name_dataset(row)
        types = self._join_types(read_types(row) or (found or {}).get(dataset, ()))
        inner = _inner(row)
        identifier = inner.get("id", row.get("id"))
        if isinstance(identifier, int):
            identifier = str(identifier)
        if identifier is not None and not isinstance(identifier, str):
            raise TypeError(f"id must be a string: got {identifier!r:.60}")
        words, labels, text = (inner.get(key, row.get(key)) for key in ("words", "labels", "text"))
        if labels is None and "entities" in row and isinstance(text, str):
            marked = label_text(text, read_entities(text, row["entities"]), _words_of(words))
            self.cut_words += marked.cut_words
            sentence = make_sentence(
                marked.words, marked.labels, types,
                dataset=dataset, id=identifier, reader=self.labels,
            )  # fmt: skip
            return sentence._replace(text=text, offsets=marked.offsets)
        if words is None or labels is None:
            raise ValueError("expected words and labels, or text and entities: got neither")
        sentence = make_sentence(
            _texts("words", words), _texts("labels", labels), types,
            dataset=dataset, id=identifier, reader=self.labels,
        )  # fmt: skip
        return sentence._replace(text=text) if isinstance(text, str) else sentence

    def name_dataset(self, row: Mapping[str, Any]) -> str:
        """Returns the name of a row's data set.

        Args:
            row: the row.

        Raises:
            TypeError: it is no string.
        """
        dataset = row.get("dataset")
        if dataset is not None and not isinstance(dataset, str):
            raise TypeError(f"dataset must be a string: got {dataset!r:.60}")
        return dataset or self.dataset

    def _join_types(self, types: Sequence[str]) -> Sequence[str]:
        if not self.types:
            return types
        own = {*types}
        return [*types, *(name for name in self.types if name not in own)]


def parse_sentence(row: Mapping[str, Any]) -> Sentence:
    """Returns the sentence of a row.

    Args:
        row: `words`, `labels` and `types` (or `label_list`), at the top or in `instance` as in the
            authors' files; or `text` and `entities`, each with `start`, `end` and `type`, and
            `types`, the types of the entities if they are not there.

    Raises:
        TypeError: a value has another type.
        ValueError: a key is missing, or a value cannot be used.

    Example:
        >>> row = {"text": "Ada ran.", "entities": [{"start": 0, "end": 3, "type": "person"}]}
        >>> parse_sentence(row | {"types": ["person"]}).labels
        ['B-person', 'O', 'O']
    """
    return RowParser().parse(row)


def read_types(row: Mapping[str, Any]) -> list[str]:
    """Returns the types that a row names; none if it names none.

    Args:
        row: with `types`, or the older `label_list`.

    Raises:
        TypeError: they are no list of strings.
        ValueError: the list is empty, or a name cannot be used.

    Example:
        >>> read_types({"label_list": ["person"]})
        ['person']
    """
    for key in ("types", "label_list"):
        if row.get(key) is not None:
            types = _texts(key, row[key])
            check_types(types)
            return types
    return []


def types_in(row: Mapping[str, Any]) -> list[str]:
    """Returns the types that a row's labels or entities use, in the order of the row.

    Args:
        row: as for `parse_sentence`; what is wrong with it is found when it is parsed.

    Example:
        >>> types_in({"labels": ["O", "B-city"]}), types_in({"entities": [{"type": "person"}]})
        (['city'], ['person'])
    """
    labels = _inner(row).get("labels", row.get("labels"))
    if isinstance(labels, list):
        names = [label[2:] for label in labels if isinstance(label, str) and label[1:2] == "-"]
    else:
        entities = row.get("entities")
        marked = (
            [e for e in entities if isinstance(e, Mapping)] if isinstance(entities, list) else []
        )
        names = [entity.get("type", entity.get("label")) for entity in marked]
    return [name for name in dict.fromkeys(names) if isinstance(name, str)]


def _inner(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What holds words and labels: the row, or the authors' `instance` in it."""
    instance = row.get("instance")
    if instance is None:
        return row
    if not isinstance(instance, Mapping):
        raise TypeError(f"instance must be an object: got {type(instance).__name__}")
    return instance


def _texts(name: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} must be a list of strings: got {type(value).__name__}")
    for number, text in enumerate(value, 1):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"{name} must be a list of strings: got {kind} as number {number}")
    return [*value]


def _words_of(words: Any) -> list[str] | None:
    return None if words is None else _texts("words", words)
