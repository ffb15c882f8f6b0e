"""Raw text cut into words that remember where they stood."""

from collections.abc import Sequence

from lmcore import _core


def split_words(text: str) -> list[tuple[int, int]]:
    """Returns the (start, end) of each word of `text`, in characters.

    White space separates words. A Chinese or Japanese character is a word of its own.
    Letters, marks, numbers and "_" run together, and single "-" joins two runs. Any other
    character is a word of its own, together with the marks, joiners and skin tones after it.

    Args:
        text: any text without lone surrogates.

    Returns:
        Half-open ranges in order, without overlap: `text[start:end]` is the word.

    Raises:
        TypeError: `text` is not a str.
        ValueError: `text` holds a lone surrogate.

    Example:
        >>> text = "EU-wide ban. 北京"
        >>> [text[start:end] for start, end in split_words(text)]
        ['EU-wide', 'ban', '.', '北', '京']
    """
    return _core.split_words(text)


def locate_words(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Returns where each of the given words stands in `text`, in characters.

    Each word is looked for after the end of the one before it.

    Args:
        text: any text without lone surrogates.
        words: words that occur in `text` in this order, without overlap.

    Returns:
        One half-open range per word.

    Raises:
        TypeError: `text` is not a str, or `words` not a sequence of str.
        ValueError: a word is not found after the one before it.

    Example:
        >>> locate_words("New York, USA", ["New York", ",", "USA"])
        [(0, 8), (8, 9), (10, 13)]
    """
    return _core.locate_words(text, words)
