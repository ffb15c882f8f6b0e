"""Long sentences cut into windows that overlap."""

from __future__ import annotations

from collections.abc import Sequence


def cut_windows(
    count: int, max_words: int | None, overlap: int = 0, labels: Sequence[str] | None = None
) -> list[tuple[int, int]]:
    """Returns the windows of a sentence: each word stands in one at least, in order.

    Where labels are given, a window ends before an entity that it would cut and begins before one
    that it would begin within, so that an entity is cut only if it is longer than a window.

    Args:
        count: words of the sentence.
        max_words: most words of a window; None for one window of all words.
        overlap: words that a window has in common with the one before it; there may be more or
            fewer of them where a border was moved.
        labels: BIO labels of the words.

    Returns:
        Half-open ranges of words.

    Raises:
        ValueError: a window holds less than one word, or the overlap is not shorter than it.

    Example:
        >>> cut_windows(7, 4, 1)
        [(0, 4), (3, 7)]
        >>> cut_windows(7, 4, 1, ["O", "O", "O", "B-x", "I-x", "O", "O"])
        [(0, 3), (2, 6), (5, 7)]
    """
    if max_words is None:
        return [(0, count)]
    check_windows(max_words, overlap)
    if count <= max_words:
        return [(0, count)]
    entities = _Entities(labels)
    windows = []
    start = stop = 0
    while True:
        before, stop = stop, min(start + max_words, count)
        moved = entities.move_back(stop) if stop < count else stop
        if moved == before and start < before:
            # An entity begins where the last window ended: the next window begins with it.
            start = before
            stop = min(start + max_words, count)
            moved = entities.move_back(stop) if stop < count else stop
        if moved > max(before, start):
            stop = moved
        windows.append((start, stop))
        if stop == count:
            return windows
        moved, first = entities.move_back(stop - overlap), start
        if not (moved > first and moved + max_words > stop):
            # Too far back to get on: behind the entity, if it ends in this window.
            moved = entities.move_on(stop - overlap)
        start = moved if moved <= stop else max(stop - overlap, first + 1)


def check_windows(max_words: int | None, overlap: int) -> None:
    """Raises ValueError unless sentences can be cut into such windows.

    Args:
        max_words: most words of a window, or None.
        overlap: words that two windows have in common.

    Raises:
        ValueError: see `cut_windows`.

    Example:
        >>> check_windows(8, 8)
        Traceback (most recent call last):
        ValueError: overlap must be at least 0 and below max_words, 8: got 8
    """
    if max_words is None:
        if overlap:
            raise ValueError(f"overlap goes with max_words: got {overlap} without it")
        return
    if max_words < 1:
        raise ValueError(f"max_words must be at least 1: got {max_words}")
    if not 0 <= overlap < max_words:
        raise ValueError(
            f"overlap must be at least 0 and below max_words, {max_words}: got {overlap}"
        )


def repair_window(labels: Sequence[str]) -> list[str]:
    """Returns the labels of a window, of which an `I-` that lost its begin becomes `B-`.

    Args:
        labels: BIO labels of the window.

    Example:
        >>> repair_window(["I-x", "I-x", "O"])
        ['B-x', 'I-x', 'O']
    """
    made = [*labels]
    if made and made[0].startswith("I-"):
        made[0] = f"B-{made[0][2:]}"
    return made


class _Entities:
    """Where entities begin and end."""

    def __init__(self, labels: Sequence[str] | None) -> None:
        self._labels = labels

    def move_back(self, border: int) -> int:
        """The begin of the entity that this border would cut, or the border."""
        if self._labels is not None:
            while self._labels[border].startswith("I-"):
                border -= 1
        return border

    def move_on(self, border: int) -> int:
        """The end of the entity that this border would cut, or the border."""
        if self._labels is not None:
            while border < len(self._labels) and self._labels[border].startswith("I-"):
                border += 1
        return border
