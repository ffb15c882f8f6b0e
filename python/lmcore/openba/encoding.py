"""Texts cut into ids by all cores, in a thread of its own, while others use what came before."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from queue import Queue
from typing import Any, Generic, Protocol, TypeVar


class Texts(Protocol):
    """What has texts that are cut together."""

    texts: list[str]


B = TypeVar("B", bound=Texts)


class TextEncoder(Generic[B]):
    """Ids of plain texts: `</s>` or `<S>` in one of them is cut as any other text.

    Args:
        backend: of the library tokenizers; it is changed, so that it takes texts as plain and
            whole.

    Example:
        >>> from types import SimpleNamespace
        >>> from tokenizers import Tokenizer, models
        >>> encoder = TextEncoder(Tokenizer(models.BPE({"a": 0, "b": 1}, [])))
        >>> batches = [SimpleNamespace(texts=["ab", "a"]), SimpleNamespace(texts=["b"])]
        >>> for batch, found in encoder.encode_ahead(iter(batches)):
        ...     print(batch.texts, [encoding.ids for encoding in found])
        ['ab', 'a'] [[0, 1], [0]]
        ['b'] [[1]]
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()

    def encode_ahead(self, batches: Iterator[B]) -> Iterator[tuple[B, Any]]:
        """Yields batches with what became of their texts; the next one is encoded meanwhile.

        The thread dies with the process: an interrupt does not wait until a long text is done.

        Args:
            batches: in which order they come, and are yielded.
        """
        todo: Queue[B | None] = Queue()
        done: Queue[tuple[B, Any]] = Queue()
        thread = threading.Thread(target=self._work, args=(todo, done), daemon=True)
        thread.start()
        under_way = 0
        try:
            for batch in batches:
                todo.put(batch)
                under_way += 1
                if under_way > 1:
                    yield self._take(*done.get())
                    under_way -= 1
            for _ in range(under_way):
                yield self._take(*done.get())
        finally:
            todo.put(None)

    def _work(self, todo: Queue[B | None], done: Queue[tuple[B, Any]]) -> None:
        while (batch := todo.get()) is not None:
            try:
                found = self._backend.encode_batch_fast(batch.texts, add_special_tokens=False)
            except BaseException as error:
                found = error
            done.put((batch, found))

    def _take(self, batch: B, found: Any) -> tuple[B, Any]:
        if isinstance(found, BaseException):
            raise found
        return self._collect(batch, found)

    def _collect(self, batch: B, found: Sequence[Any]) -> tuple[B, Any]:
        """What is yielded of a batch and its encodings."""
        return batch, found


def count_cores() -> int:
    """Returns the number of cores that the process may use.

    Example:
        >>> count_cores() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
