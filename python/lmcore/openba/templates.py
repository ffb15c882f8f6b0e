"""Templates: how the fields of a row become a source and a target.

A template is text with the names of fields in braces, `Translate: {text}`; `{{` and `}}` are
braces of the text. A name is looked up as it stands among the keys of the row, and nothing else
is: no attribute, no index, no format. `{a.__class__}` is a field that the row does not have.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lmcore._json import read_json, refuse_surrogates

LANGUAGES = ("en", "zh")
_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_KEYS = {"source", "target", "language", "choices"}
# As long a name of a task or field as an error shows.
_SHOWN = 60

Choices = Sequence[str] | Mapping[str, str]


class Template:
    """Text with the names of fields.

    Args:
        text: such as `Translate: {text}`.
        choices: words for the values of a field, by its name: a list for numbers from 0, or an
            object for texts.

    Attributes:
        fields: names of the fields, in the order in which they come first.
        slots: each field with its choices, if it has some.
        is_bare: whether there is nothing but fields and blanks.

    Raises:
        ValueError: a brace has no counterpart, or stands around no name.

    Example:
        >>> template = Template("{{{label}}}: {text}", {"label": ["no", "yes"]})
        >>> template.fill({"label": 1, "text": "a"})
        '{yes}: a'
        >>> Template("{a.__class__}").fill({"a": "text"})
        Traceback (most recent call last):
        ValueError: the field 'a.__class__' is absent
    """

    def __init__(self, text: str, choices: Mapping[str, Choices] | None = None) -> None:
        words = choices or {}
        self._texts = [""]  # what stands before, between and behind the fields
        self.slots: list[tuple[str, Choices | None]] = []
        last = 0
        for match in _PARTS.finditer(text):
            self._texts[-1] += text[last : match.start()]
            last = match.end()
            name = match[1]
            if name is None and len(match[0]) == 2:
                self._texts[-1] += match[0][0]
                continue
            if not name:
                place = f"at character {match.start() + 1}"
                raise ValueError(f"expected a field in braces, or two of them, {place}")
            self.slots.append((name, words.get(name)))
            self._texts.append("")
        self._texts[-1] += text[last:]
        self.fields = tuple(dict.fromkeys(name for name, _ in self.slots))
        self.is_bare = not "".join(self._texts).strip()

    def fill(self, row: Mapping[str, Any]) -> str:
        """Returns the text with the values of a row.

        Args:
            row: fields by name: texts, numbers and booleans.

        Raises:
            ValueError: a field is absent, or of another kind, or has no word among its choices.
        """
        parts = [self._texts[0]]
        for (name, choices), text in zip(self.slots, self._texts[1:], strict=True):
            value = row.get(name)
            if type(value) is not str or choices is not None:
                value = find_text(name, row, choices)
            parts.append(value)
            parts.append(text)
        return "".join(parts)


class PairTemplate(NamedTuple):
    """How a row becomes a source and a target."""

    source: Template
    target: Template
    language: str | None
    """`en` or `zh`: of the wording; None where it is the row's own."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of all fields."""
        return tuple(dict.fromkeys(self.source.fields + self.target.fields))


def read_templates(path: str | os.PathLike[str]) -> dict[str, list[PairTemplate]]:
    """Returns the templates of each task.

    The file is JSON: `{"task": [{"source": "...", "target": "...", "language": "en"}, ...]}`, with
    `choices` where a field's values become words: `{"label": ["no", "yes"]}`.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, a key stands twice, or a template cannot be used; the text
            names file, task and number of the template.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        ...     _ = file.write('{"qa": [{"source": "Q: {q}", "target": "{a}"}]}'), file.flush()
        ...     [template] = read_templates(file.name)["qa"]
        >>> template.source.fill({"q": "Why?"}), template.fields, template.language
        ('Q: Why?', ('q', 'a'), None)
    """
    name = os.fspath(path)
    content = read_json(path, "templates")
    try:
        refuse_surrogates(content)  # rows of such a text would be none that anybody reads
    except ValueError as error:
        raise ValueError(f"{name}: not templates: {error}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{name}: expected an object with the templates of each task")
    found: dict[str, list[PairTemplate]] = {}
    for task, items in content.items():
        place = f"{name}: task {task!r:.{_SHOWN}}"
        if not isinstance(items, list) or not items:
            raise ValueError(f"{place}: expected a list of templates")
        found[task] = []
        for number, item in enumerate(items, 1):
            try:
                found[task].append(_make_template(item))
            except ValueError as error:
                raise ValueError(f"{place}, template {number}: {error}") from None
    return found


def check_language(value: Any) -> str:
    """Returns a language.

    Args:
        value: `en` or `zh`.

    Raises:
        ValueError: it is another.

    Example:
        >>> check_language("zh")
        'zh'
    """
    if value not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}: got {value!r:.60}")
    return str(value)


def find_text(name: str, row: Mapping[str, Any], choices: Choices | None = None) -> str:
    """Returns the text of a row's field.

    Args:
        name: of the field.
        row: fields by name.
        choices: words for its values.

    Raises:
        ValueError: it is absent, neither a text nor a number, or has no word among the choices.

    Example:
        >>> find_text("n", {"n": 2.5}), find_text("label", {"label": 0}, ["no", "yes"])
        ('2.5', 'no')
    """
    if name not in row:
        raise ValueError(f"the field {name!r:.{_SHOWN}} is absent")
    value = row[name]
    if isinstance(choices, Mapping) and isinstance(value, str) and value in choices:
        return choices[value]
    if isinstance(choices, Sequence) and isinstance(value, int) and 0 <= value < len(choices):
        return choices[value]
    if choices is not None:
        raise ValueError(
            f"the field {name!r:.{_SHOWN}} must be one of its {len(choices)} choices: "
            f"got {value!r:.{_SHOWN}}"
        )
    if isinstance(value, str):
        return value
    if not isinstance(value, int | float):
        raise ValueError(
            f"the field {name!r:.{_SHOWN}} must be a text or a number: got {value!r:.{_SHOWN}}"
        )
    return json.dumps(value)


def _make_template(item: Any) -> PairTemplate:
    if not isinstance(item, dict):
        raise ValueError(f"expected an object with source and target, got {item!r:.{_SHOWN}}")
    unknown = [key for key in item if key not in _KEYS]
    if unknown:
        raise ValueError(f"expected {', '.join(sorted(_KEYS))}: got {unknown[0]!r:.{_SHOWN}}")
    choices = item.get("choices", {})
    if not isinstance(choices, dict) or not all(map(_is_choice, choices.values())):
        raise ValueError("choices must be lists of texts, or objects of them, by field")
    source, target = (_make_side(item, side, choices) for side in ("source", "target"))
    language = item.get("language")
    return PairTemplate(source, target, None if language is None else check_language(language))


def _make_side(item: dict[str, Any], side: str, choices: dict[str, Choices]) -> Template:
    text = item.get(side)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{side} must be a text that is not empty: got {text!r:.{_SHOWN}}")
    try:
        return Template(text, choices)
    except ValueError as error:
        raise ValueError(f"{side}: {error}") from None


def _is_choice(value: Any) -> bool:
    words = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and all(isinstance(word, str) for word in words)
