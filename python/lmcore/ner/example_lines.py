"""Examples as lines of a file: the JSON of their rows, put together from texts.

Most sentences hold nothing that JSON escapes. Their words are joined and looked at once, and
instruction, target and lists are made from what was joined, in a fourth of the time that an
encoder takes for the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from lmcore._text import to_json
from lmcore.ner.examples import ExampleBuilder, ExampleConfig, ExampleReport, Prepared
from lmcore.ner.instructions import join_target, join_words
from lmcore.ner.sentences import Sentence

_BETWEEN = '", "'


def write_lines(
    sentences: Iterable[Sentence], config: ExampleConfig, report: ExampleReport
) -> Iterator[str]:
    """Yields the rows of the examples of sentences as JSON, each as `to_json` writes it.

    Args:
        sentences: checked ones.
        config: as for `build_examples`.
        report: counts what happened.

    Example:
        >>> sentences = [Sentence(["Ada"], ["B-person"], ["person"], "letters")]
        >>> (line,) = write_lines(sentences, ExampleConfig(context=0), ExampleReport())
        >>> line[:73]
        '{"dataset": "letters", "types": ["person"], "words": ["Ada"], "labels": ['
    """
    builder = ExampleBuilder(config, report)
    lines = _Lines(builder)
    return map(lines.write, builder.prepare(sentences))


class _Lines:
    def __init__(self, builder: ExampleBuilder) -> None:
        self._builder = builder
        self._context = builder.config.context
        self._names_dataset = builder.config.name_dataset
        self._ends = _Ends()
        self._fill = builder.template.escape(_escape).fill_texts

    def write(self, prepared: Prepared) -> str:
        sentence, types, labels, window = prepared
        words = sentence.words
        joined, named = _BETWEEN.join(words), _BETWEEN.join(types)
        is_plain = sentence.text is None and window is None
        # All labels are of the named types, so that they hold nothing else.
        if not (is_plain and _is_clean(joined, len(words)) and _is_clean(named, len(types))):
            return to_json(self._builder.write(prepared).to_row())
        self._builder.check_words(joined)
        dataset = sentence.dataset if self._names_dataset else None
        instruction = self._fill(
            joined.replace(_BETWEEN, " "), named.replace(_BETWEEN, ", "),
            None if dataset is None else _escape(dataset),
        )  # fmt: skip
        if self._context == "all":
            target = join_words(words, map(self._ends.__getitem__, labels))
        else:
            target = join_target(words, labels, self._context)
        identity = "" if sentence.id is None else f', "id": "{_escape_once(sentence.id)}"'
        return (
            f'{{"dataset": "{_escape(sentence.dataset)}"{identity}, "types": ["{named}"], '
            f'"words": ["{joined}"], "labels": ["{_BETWEEN.join(sentence.labels)}"], '
            f'"instruction": "{instruction}", "target": "{target}"}}'
        )


class _Ends(dict[str, str]):
    """What stands behind a word of a label, for the labels that were met."""

    def __missing__(self, label: str) -> str:
        self[label] = f"({label}) "
        return self[label]


def _is_clean(joined: str, count: int) -> bool:
    """Whether JSON escapes nothing of so many joined texts, which are one at least."""
    return joined.count('"') == 2 * count - 2 and "\\" not in joined and joined.isprintable()


def _escape_once(text: str) -> str:
    return text if _is_clean(text, 1) else to_json(text)[1:-1]


_escape = lru_cache(maxsize=64)(_escape_once)
