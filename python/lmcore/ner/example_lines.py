"""Examples as lines of a file: the JSON of their rows, most of them written by the core."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, islice

from lmcore._text import to_json
from lmcore.ner.examples import ExampleBuilder, ExampleConfig, ExampleReport, Prepared
from lmcore.ner.sentences import Sentence
from lmcore.ops.examples import write_examples_batch

_ROWS_AT_ONCE = 256


def write_lines(
    sentences: Iterable[Sentence], config: ExampleConfig, report: ExampleReport
) -> Iterator[bytes]:
    """Yields the rows of the examples of sentences, some lines at a time, as `to_json` writes them.

    Args:
        sentences: checked ones.
        config: as for `build_examples`.
        report: counts what happened.

    Example:
        >>> sentences = [Sentence(["Ada"], ["B-person"], ["person"], "letters")]
        >>> (lines,) = write_lines(sentences, ExampleConfig(context=0), ExampleReport())
        >>> lines.decode()[:73]
        '{"dataset": "letters", "types": ["person"], "words": ["Ada"], "labels": ['
    """
    builder = ExampleBuilder(config, report)
    prepared = builder.prepare(sentences)
    while block := list(islice(prepared, _ROWS_AT_ONCE)):
        for is_plain, run in groupby(block, _is_plain):
            write = _write_plain if is_plain else _write_each
            yield write(builder, list(run))


def _is_plain(prepared: Prepared) -> bool:
    """Whether a row has no members but those of all rows."""
    return prepared.window is None and prepared.sentence.text is None


def _write_each(builder: ExampleBuilder, block: Sequence[Prepared]) -> bytes:
    return "".join(f"{to_json(builder.write(item).to_row())}\n" for item in block).encode()


def _write_plain(builder: ExampleBuilder, block: Sequence[Prepared]) -> bytes:
    config = builder.config
    sentences = [item.sentence for item in block]
    try:
        lines, unreadable = write_examples_batch(
            list(map(_write_head, sentences)),
            [item.types for item in block],
            [sentence.words for sentence in sentences],
            [sentence.labels for sentence in sentences],
            builder.template.parts(with_dataset=config.name_dataset),
            target_labels=None if config.boundaries == "bio" else [item.labels for item in block],
            datasets=[sentence.dataset for sentence in sentences] if config.name_dataset else None,
            context=None if config.context == "all" else int(config.context),
            threads=1,
        )
    except ValueError:
        # A lone surrogate, which stands in no UTF-8; its number in JSON does.
        return _write_each(builder, block)
    builder.count_unreadable(unreadable)
    return lines


def _write_head(sentence: Sentence) -> str:
    dataset, identity = _write_dataset(sentence.dataset), sentence.id
    if identity is None:
        return dataset
    # Most are numbers.
    written = f'"{identity}"' if identity.isalnum() else to_json(identity)
    return f'{dataset}, "id": {written}'


@lru_cache(maxsize=64)
def _write_dataset(name: str) -> str:
    return f'"dataset": {to_json(name)}'
