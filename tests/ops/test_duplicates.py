"""`ops.duplicates`: published hashes, what stands twice, the laws, and the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops.cleaning import clean_texts
from lmcore.ops.duplicates import ENTRY_BYTES, Duplicates, hash_texts
from lmcore.reference import duplicates as reference
from lmcore.reference.cleaning import split_sentences
from parity import agree
from strategies import surrogate_texts, texts

KEY = bytes(range(16))
# No rule changes these sentences, or what is left of texts of them.
OFF = {
    "html": False, "links": False, "emails": False, "phone_numbers": False, "most_repeats": 0,
    "minimum_words": 0,
}  # fmt: skip
SENTENCES = ["It rains. ", "We stay.\n", "他走了。", "“Go!” ", "Mr. Li left. ", "下雨。下"]
documents = st.lists(st.sampled_from(SENTENCES), max_size=6).map("".join)


# Golden: the authors' test vectors, of the bytes 0, 1, 2, ... under the key 0, 1, 2, ...


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (2, "8177228da4a45dc7fca38bdef60affe4"),
        (7, "a1f1ebbed8dbc153c0b84aa61ff08239"),
        (8, "3b62a9ba6258f5610f83e264f31497b4"),
        (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
    ],
)
def test_published_hashes(size: int, expected: str) -> None:
    text = bytes(range(size)).decode()
    halves = agree(hash_by_reference, lambda t: hash_texts([t], key=KEY)[0], text)
    assert b"".join(half.to_bytes(8, "little") for half in halves).hex() == expected


def hash_by_reference(text: str) -> list[int]:
    return list(reference.hash_text(text, KEY))


# Laws.


@given(st.lists(st.lists(texts, max_size=6), max_size=4))
def test_what_stood_before_is_known(batches: list[list[str]]) -> None:
    seen, known = Duplicates(key=KEY), set()
    for batch in batches:
        found = seen.add(batch, threads=2)
        assert found.dtype == bool
        for text, is_known in zip(batch, found.tolist(), strict=True):
            assert is_known == (text in known)
            known.add(text)
    assert len(seen) == len(known)


def test_a_hundred_thousand_texts_are_told_apart() -> None:
    seen = Duplicates()
    lines = [f"line {k}" for k in range(100_000)]
    assert not seen.add(lines).any()
    assert seen.add(lines[::-1], threads=3).all()
    assert len(seen) == len(lines)
    base = Duplicates().memory_bytes
    assert (
        10 <= (seen.memory_bytes - base) / len(lines) <= 32
    )  # tables of two entries are half empty


@given(st.lists(texts, max_size=9), st.integers(0, 9))
def test_hashes_come_back(many: list[str], place: int) -> None:
    seen = Duplicates(key=KEY, keeps_added=True)
    seen.add(many[:place])
    stored = seen.take_added()
    assert len(stored) == ENTRY_BYTES * len(set(many[:place]))
    again = Duplicates(key=KEY)
    again.load(stored)
    assert len(again) == len(seen)
    assert again.add(many).tolist() == seen.add(many).tolist()


def remove(seen: Duplicates, many: list[str], size: int, **options: Any) -> list[str | None]:
    return seen.remove(many, sentences=size, **OFF, **options).texts


@given(st.lists(documents, max_size=6))
def test_runs_of_all_lengths_are_those_of_the_shortest(many: list[str]) -> None:
    """The paper's runs of 1 to 99 sentences, by brute force."""
    known: set[tuple[str, ...]] = set()
    expected = []
    for text in many:
        sentences = [text[start:end].strip() for start, end in split_sentences(text)]
        gone = set()
        for size in range(99, 0, -1):
            for start in range(len(sentences) - size + 1):
                run = tuple(sentences[start : start + size])
                if run in known or any(run == tuple(sentences[k : k + size]) for k in range(start)):
                    gone |= set(range(start, start + size))
        for size in range(1, 99):
            known |= {tuple(sentences[k : k + size]) for k in range(len(sentences) - size + 1)}
        expected.append([s for k, s in enumerate(sentences) if k not in gone])
    found = Duplicates().remove(many, documents=False, sentences=1, **OFF).texts
    left = [
        [] if text is None else [text[start:end].strip() for start, end in split_sentences(text)]
        for text in found
    ]
    assert left == expected


@given(st.lists(documents, max_size=6), st.integers(0, 3), st.booleans())
def test_nothing_stands_twice_in_what_is_left(many: list[str], size: int, whole: bool) -> None:
    once = remove(Duplicates(), many, size, documents=whole)
    left = [text for text in once if text is not None]
    found = Duplicates().remove(left, sentences=size, documents=whole, **OFF)
    assert found.texts == left
    assert (found.documents, found.paragraphs) == ((0, 0), (0, 0))
    assert not whole or len(set(left)) == len(left)


@given(st.lists(documents, max_size=6), st.integers(0, 3), st.integers(0, 6))
def test_neither_threads_nor_batches_change_the_result(
    many: list[str], size: int, place: int
) -> None:
    expected = remove(Duplicates(), many * 99, size, threads=1)
    assert remove(Duplicates(), many * 99, size, threads=3) == expected
    seen = Duplicates()
    parts = [(many * 99)[:place], (many * 99)[place:]]
    assert [text for part in parts for text in remove(seen, part, size)] == expected


def test_what_is_left_is_clean() -> None:
    """Sentences that meet because one between them went can be a tag, and then are one."""
    first, second = "Y has < here. ", "He wrote <b one. Y has < here. Two> end. "
    found = Duplicates().remove([first, second], minimum_words=0)
    assert found.texts == ["Y has < here. ", "He wrote  end."]
    assert found.removed[0] == (1, 12)
    again = clean_texts(found.texts[1:], minimum_words=0)
    assert again.texts == found.texts[1:]


def test_counts() -> None:
    many = ["It rains. We stay.", "We stay. They go.", "It rains. We stay.", "We stay."]
    found = Duplicates().remove(many, **OFF)
    assert found.texts == ["It rains. We stay.", "They go.", None, None]
    assert found.dropped == ["", "", "duplicate_documents", "empty"]
    assert (found.documents, found.paragraphs) == ((1, 18), (2, 17))


def test_parts_of_the_hashes_find_the_same() -> None:
    lines = [f"line {k % 700}" for k in range(1000)]
    first = hash_texts(lines)[:, 0]
    found = np.zeros(len(lines), bool)
    for part in range(3):
        mine = np.flatnonzero(first % np.uint64(3) == part)
        found[mine] = Duplicates().add([lines[k] for k in mine])
    assert found.tolist() == Duplicates().add(lines).tolist()


# Parity.


@given(st.lists(texts, max_size=6), st.binary(min_size=16, max_size=16))
def test_duplicates_agree(many: list[str], key: bytes) -> None:
    agree(
        reference.find_duplicates,
        lambda given_texts, k: Duplicates(key=k).add(given_texts).tolist(),
        many + many[::2],
        key,
    )


@given(texts, st.binary(min_size=16, max_size=16))
def test_hashes_agree(text: str, key: bytes) -> None:
    assert tuple(hash_texts([text], key=key)[0].tolist()) == reference.hash_text(text, key)


# Errors.


def test_a_bound_on_memory_names_the_number() -> None:
    base = Duplicates().memory_bytes
    seen = Duplicates(max_memory=base + 1000)
    lines = [f"line {k}" for k in range(1000)]
    with pytest.raises(MemoryError, match=rf"distinct texts .* fill max_memory, {base + 1000} b"):
        seen.add(lines)
    kept = len(seen)
    assert kept > 5
    assert seen.add(lines[:kept]).all()
    assert seen.memory_bytes <= base + 1000


@given(surrogate_texts)
def test_lone_surrogates_are_refused(text: str) -> None:
    for call in (hash_texts, Duplicates().add, Duplicates().remove):
        with pytest.raises(ValueError, match=r"^texts\[0\] holds a lone surrogate$"):
            call([text])


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"^key must be 16 bytes long: got 3"):
        Duplicates(key=b"abc")
    with pytest.raises(TypeError, match=r"^key must be bytes: got str"):
        hash_texts([], key="a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^max_memory must be"):
        Duplicates(max_memory=-1)
    with pytest.raises(ValueError, match=r"^sentences must be"):
        Duplicates().remove([], sentences=-1)
    with pytest.raises(TypeError, match=r"^texts must be a sequence of str: got str"):
        Duplicates().add("ab")
    with pytest.raises(ValueError, match=r"^stored hashes must be a multiple of 10 bytes"):
        Duplicates().load(bytes(11))
