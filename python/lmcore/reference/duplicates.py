"""Which texts stood before, by their hashes.

A text is known by 80 bits of its SipHash-2-4 of 128 bits (Aumasson and Bernstein, INDOCRYPT 2012),
under a key of its own for each run: who does not know the key cannot make texts that are taken for
others, and of n distinct texts two are taken for one with a probability of n^2 / 2^81.
"""

from collections.abc import Sequence

_MASK = (1 << 64) - 1
PREFIX_BITS = 16


def hash_text(text: str, key: bytes = bytes(16)) -> tuple[int, int]:
    """Returns the two halves of the SipHash-2-4-128 of a text's UTF-8.

    Args:
        text: any text without lone surrogates.
        key: 16 bytes.

    Example:
        >>> [f"{half:016x}" for half in hash_text("")]
        ['7de0a38047d74950', 'f4f2ced447ab0242']
    """
    first, second = (int.from_bytes(key[k : k + 8], "little") for k in (0, 8))
    v0, v1 = first ^ 0x736F6D6570736575, second ^ 0x646F72616E646F6D ^ 0xEE
    v2, v3 = first ^ 0x6C7967656E657261, second ^ 0x7465646279746573
    state = (v0, v1, v2, v3)
    content = text.encode()
    end = len(content) % 256
    padded = content + bytes(7 - len(content) % 8) + bytes([end])
    for k in range(0, len(padded), 8):
        word = int.from_bytes(padded[k : k + 8], "little")
        v0, v1, v2, v3 = state
        v0, v1, v2, v3 = _mix(_mix((v0, v1, v2, v3 ^ word)))
        state = (v0 ^ word, v1, v2, v3)
    v0, v1, v2, v3 = state
    state = _mix(_mix(_mix(_mix((v0, v1, v2 ^ 0xEE, v3)))))
    low = state[0] ^ state[1] ^ state[2] ^ state[3]
    v0, v1, v2, v3 = state
    state = _mix(_mix(_mix(_mix((v0, v1 ^ 0xDD, v2, v3)))))
    return low, state[0] ^ state[1] ^ state[2] ^ state[3]


def _mix(state: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    v0, v1, v2, v3 = state
    v0 = (v0 + v1) & _MASK
    v1 = _turn(v1, 13) ^ v0
    v0 = _turn(v0, 32)
    v2 = (v2 + v3) & _MASK
    v3 = _turn(v3, 16) ^ v2
    v0 = (v0 + v3) & _MASK
    v3 = _turn(v3, 21) ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = _turn(v1, 17) ^ v2
    v2 = _turn(v2, 32)
    return v0, v1, v2, v3


def _turn(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def find_duplicates(texts: Sequence[str], key: bytes = bytes(16)) -> list[bool]:
    """Returns for each text whether it stood before.

    Args:
        texts: any number of them, without lone surrogates.
        key: 16 bytes.

    Example:
        >>> find_duplicates(["a", "b", "a"])
        [False, False, True]
    """
    seen, found = set(), []
    for text in texts:
        low, high = hash_text(text, key)
        known = (low & (1 << PREFIX_BITS) - 1, high)
        found.append(known in seen)
        seen.add(known)
    return found
