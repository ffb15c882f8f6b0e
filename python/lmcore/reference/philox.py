"""Philox4x32-10: random numbers as a pure function of (seed, stream, item, position).

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011), section 3.3 and table 2.
"""

from collections.abc import Iterator
from enum import IntEnum, unique
from typing import TypeVar

from lmcore.reference._arguments import check_int, in_range

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10
_LANES = 16

T = TypeVar("T")


@unique
class Stream(IntEnum):
    """Which use of randomness a draw belongs to: the one table of all of them.

    Two uses with one number would draw the same, and with another number a use draws something
    else: numbers are given once. `rust/philox.rs` has the same table.
    """

    ENGLISH_SENTENCES = 1
    """English sentences of a generated corpus."""
    CHINESE_SENTENCES = 2
    """Chinese sentences of a generated corpus."""
    DAMAGE = 3
    """Damage to generated text."""
    SENTENCE_LENGTHS = 4
    """Lengths of sentences that are timed."""
    DOMAINS = 5
    """Which entity types make a domain of a generated corpus."""
    DOMAIN_SENTENCES = 6
    """Sentences of the domains."""
    ENGLISH_DOCUMENTS = 7
    """English documents of a generated corpus."""
    CHINESE_DOCUMENTS = 8
    """Chinese documents of a generated corpus."""
    GENRES = 16
    """Genres of a generated catalogue."""
    TURNS = 17
    """Which way tastes turn."""
    ITEMS = 18
    """Items of a generated catalogue."""
    TASTES = 19
    """Tastes of generated users."""
    CHOICES = 20
    """What generated users choose."""
    USERS = 101
    """The user of a row of a training batch."""
    NEGATIVES = 102
    """Negatives of a row of a training batch."""
    SHUFFLE = 103
    """The order of the users in an epoch."""
    CANDIDATES = 104
    """Candidates among which a target is ranked."""
    SENTENCE_CHOICES = 121
    """Which sentences of a large data set are taken."""
    TYPE_ORDERS = 122
    """The order in which an instruction names the entity types."""
    TYPE_CHOICES = 123
    """Which types that a sentence lacks an instruction names."""
    TYPE_DROPS = 124
    """Which types an instruction leaves out."""
    DENOISERS = 141
    """Which denoiser a text gets."""
    NOISE_SPANS = 142
    """Which tokens of a text are noise."""
    NEXT_TOKENS = 143
    """Which token a text goes on with."""
    KEPT_INDICES = 161
    """Which heads, inner and hidden units a random pruning keeps."""
    NEIGHBOURS = 181
    """Which neighbour a timestep of diffusion is paired with."""
    TIMESTEPS = 182
    """The timesteps of diffusion that a batch is trained at."""
    SAMPLING_NOISE = 183
    """What each step of sampling a text by diffusion adds."""
    START_NOISE = 184
    """What sampling a text by diffusion starts with."""
    RESAMPLED_ROWS = 201
    """Rows of predictions that a bootstrap takes."""
    JUDGED_PAIRS = 221
    """Which generations judges compare, and on which side each stands."""
    CHAIN_ANCHORS = 227
    """What a model in training continues its chains with, to be contrasted with."""
    CHAIN_SAMPLES = 228
    """Chains that a model writes for a prompt."""
    MASK_FILLS = 232
    """What a filler puts in the place of masks, of each attempt."""
    CONTINUATIONS = 233
    """What a language model continues a prompt with."""
    ATTENTION_DROPOUT = 241
    """Which weights attention drops."""
    INSTRUCTION_ROWS = 251
    """Which rows of a task instructions are made of."""
    INSTRUCTION_TEMPLATES = 252
    """Which template a row becomes an instruction by."""
    INSTRUCTION_ORDER = 253
    """The order in which instructions are written."""
    MIXTURE_ORDERS = 256
    """The order in which the sources of a mixture take turns."""
    MIXTURE_SEEDS = 257
    """Seeds of the sources of a mixture."""
    EXERCISES = 258
    """Exercises of a generated fine-tune."""
    GATES = 259
    """How far the gates of a model that is to be pruned are open, of each step."""
    TORCH_SEEDS = 0x7E3D
    """Seeds of torch's generators."""
    ORDERS = 0x7E3E
    """Orders of training examples."""


def philox4x32(
    counter: tuple[int, int, int, int], key: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Returns the four 32-bit words that Philox4x32-10 makes of a counter and a key.

    Args:
        counter: four words below 2**32.
        key: two words below 2**32.

    Raises:
        TypeError: a word is not an int.
        ValueError: a word is negative or too large, or there are more or fewer of them.

    Example:
        >>> [f"{word:08x}" for word in philox4x32((0, 0, 0, 0), (0, 0))]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    check_words(counter, key)
    return mix(counter, key)


def check_words(counter: tuple[int, int, int, int], key: tuple[int, int]) -> None:
    """Raises TypeError or ValueError unless these are four and two words."""
    for name, words, count in (("counter", counter, 4), ("key", key, 2)):
        if len(words) != count:
            raise ValueError(f"{name} must hold {count} words: got {len(words)}")
        for index, word in enumerate(words):
            check_int(f"{name}[{index}]", word, 0, 1 << 32)


def mix(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns the ten rounds of a counter and a key that were checked."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product_1 >> 32) ^ c1 ^ k0,
            product_1 & _MASK,
            (product_0 >> 32) ^ c3 ^ k1,
            product_0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def random_bits(seed: int, stream: int, item: int, position: int) -> int:
    """Returns 64 random bits for one position of one item.

    The key is the seed; the counter is (position // 2, item low, item high, stream), of
    which even positions take the first and odd positions the last two words.

    Args:
        seed: below 2**64.
        stream: which use of randomness this is, below 2**32.
        item: sample, row or user, below 2**64.
        position: which draw within the item, below 2**33.

    Raises:
        ValueError: an argument is negative or too large.

    Example:
        >>> random_bits(seed=1, stream=0, item=0, position=0) < 2**64
        True
    """
    for name, value, bits in (
        ("seed", seed, 64),
        ("stream", stream, 32),
        ("item", item, 64),
        ("position", position, 33),
    ):
        in_range(name, value, 0, 1 << bits)
    words = mix((position >> 1, item & _MASK, item >> 32, stream), (seed & _MASK, seed >> 32))
    low, high = words[2:] if position & 1 else words[:2]
    return high << 32 | low


def random_uniform(seed: int, stream: int, item: int, position: int) -> float:
    """Returns a number in [0, 1): the upper 53 of the 64 bits, over 2**53.

    Args:
        seed: below 2**64.
        stream: below 2**32.
        item: below 2**64.
        position: below 2**33.

    Raises:
        ValueError: an argument is negative or too large.

    Example:
        >>> 0 <= random_uniform(seed=1, stream=0, item=0, position=0) < 1
        True
    """
    return (random_bits(seed, stream, item, position) >> 11) * 2.0**-53


def random_below(seed: int, stream: int, item: int, position: int, bound: int) -> int:
    """Returns an integer in [0, bound): the 64 bits times `bound`, over 2**64.

    Its probabilities differ from 1 / bound by less than 2**-64.

    Args:
        seed: below 2**64.
        stream: below 2**32.
        item: below 2**64.
        position: below 2**33.
        bound: at least 1 and below 2**63.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> random_below(seed=1, stream=0, item=0, position=0, bound=1)
        0
    """
    in_range("bound", bound, 1, 1 << 63)
    return random_bits(seed, stream, item, position) * bound >> 64


def words_by_block(seed: int, stream: int, item: int) -> Iterator[int]:
    """Yields the 32-bit words of an item block after block, without end.

    Args:
        seed: below 2**64.
        stream: below 2**32.
        item: below 2**64.

    Example:
        >>> words = words_by_block(0, 0, 0)
        >>> [f"{next(words):08x}" for _ in range(2)]
        ['6627e8d5', 'e169c58d']
    """
    block = 0
    while True:
        yield from _block(seed, stream, item, block)
        block += 1


def words_by_group(seed: int, stream: int, item: int) -> Iterator[int]:
    """Yields the first words of 16 blocks, then their second words, and so on, without end.

    Args:
        seed: below 2**64.
        stream: below 2**32.
        item: below 2**64.

    Example:
        >>> words = [word for word, _ in zip(words_by_group(0, 0, 0), range(17))]
        >>> [f"{word:08x}" for word in (words[0], words[16])]
        ['6627e8d5', 'e169c58d']
    """
    group = 0
    while True:
        first = _LANES * group
        blocks = [_block(seed, stream, item, first + lane) for lane in range(_LANES)]
        for word in range(4):
            yield from (block[word] for block in blocks)
        group += 1


def below(words: Iterator[int], bound: int) -> int:
    """Returns a number in [0, bound), each made by as many words: the others are skipped.

    Args:
        words: of 32 bits, without end.
        bound: at least 1 and at most 2**32.

    Example:
        >>> below(words_by_block(0, 0, 0), 10)
        3
    """
    for word in words:
        if (word * bound & _MASK) >= (1 << 32) % bound:
            return word * bound >> 32
    raise AssertionError("words do not end")


def shuffle(items: list[T], seed: int, stream: int, item: int) -> None:
    """Puts items into an order that every other is as likely as: Fisher and Yates, from the end.

    Args:
        items: fewer than 2**32; reordered in place.
        seed: below 2**64.
        stream: below 2**32.
        item: below 2**64.

    Example:
        >>> order = [1, 2, 3, 4, 5]
        >>> shuffle(order, 0, 0, 0)
        >>> sorted(order)
        [1, 2, 3, 4, 5]
    """
    words = words_by_group(seed, stream, item)
    for last in range(len(items) - 1, 0, -1):
        other = below(words, last + 1)
        items[last], items[other] = items[other], items[last]


def _block(seed: int, stream: int, item: int, block: int) -> tuple[int, int, int, int]:
    return mix((block, item & _MASK, item >> 32, stream), (seed & _MASK, seed >> 32))
