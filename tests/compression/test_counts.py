"""Files of counts: what is written is read, and what is broken is refused."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmcore.compression import Counts, read_counts, write_counts
from lmcore.compression.counts import check_group

EN, ZH = np.array([5, 0, 2]), np.array([0, 7, 1])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.counts"
    write_counts(path, Counts(groups={"en": EN, "zh": ZH}, tokenizer="ab" * 32))
    return path


def rewrite(path: Path, change: Any) -> None:
    """Changes the header of a file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header = change(header) or header
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_what_is_written_is_read(file: Path) -> None:
    counts = read_counts(file, vocabulary_size=3)
    assert {name: part.tolist() for name, part in counts.groups.items()} == {
        "en": [5, 0, 2], "zh": [0, 7, 1],
    }  # fmt: skip
    assert counts.total.tolist() == [5, 7, 3]
    assert (counts.tokens, counts.vocabulary_size, counts.tokenizer) == (15, 3, "ab" * 32)
    before = file.read_bytes()
    write_counts(file, counts)
    assert file.read_bytes() == before


def test_safetensors_reads_it(file: Path) -> None:
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        assert opened.get_tensor("counts/zh").tolist() == [0, 7, 1]
        assert opened.metadata()["tokens"] == "15"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h["__metadata__"].update(format="other"), "not a file of counts, but another"),
        (lambda h: h.pop("__metadata__") and None, "not a file of counts, but another"),
        (lambda h: h["__metadata__"].update(version="2"), "expected version 1 of counts, got '2'"),
        (lambda h: h["__metadata__"].update(tokens="14"), "damaged: it holds 15 tokens, and says"),
        (lambda h: h.update({"en": h.pop("counts/en")}), "expected tensors counts/<group>, got"),
        (lambda h: h["counts/en"].update(shape=[1, 3]), "expected a row of I64 in 'en', got I64"),
        (lambda h: h["counts/en"].update(dtype="F64"), "expected a row of I64 in 'en', got F64"),
        (lambda h: h["counts/en"].update(shape=[2**40]), "takes 8796093022208 bytes"),
    ],
)
def test_broken_files_are_refused(file: Path, change: Any, reason: str) -> None:
    rewrite(file, change)
    with pytest.raises(ValueError, match=reason) as caught:
        read_counts(file)
    assert str(caught.value).startswith(str(file))


def test_files_cut_short_and_bits_that_flip(file: Path) -> None:
    content = file.read_bytes()
    for end in (9, 100, len(content) - 1):
        file.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"not a whole safetensors file"):
            read_counts(file)
    file.write_bytes(struct.pack("<Q", 2**40) + content[8:])
    with pytest.raises(ValueError, match=r"its header has 1099511627776 bytes"):
        read_counts(file)
    for bit in (1, 128):  # more tokens than it says, and a negative count
        changed = bytearray(content)
        changed[-1 if bit == 128 else -8] ^= bit
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=r"damaged|negative"):
            read_counts(file)


def test_counts_of_another_vocabulary(file: Path) -> None:
    with pytest.raises(ValueError, match=r"counts of another vocabulary: expected 4 ids, got 3$"):
        read_counts(file, vocabulary_size=4)


def test_what_cannot_be_counts(tmp_path: Path) -> None:
    path = tmp_path / "b.counts"
    for groups in ({}, {"a/b": EN}, {"": EN}, {"a": EN, "b": EN[:2]}, {"a": -EN}, {"a": EN / 2}):
        with pytest.raises(ValueError, match=r"expected|must be"):
            write_counts(path, Counts(groups=groups))
    assert not path.exists()
    with pytest.raises(ValueError, match=r"got 'en zh'$"):
        check_group("en zh")


# The authors' form.


def test_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / "freq.txt"
    path.write_text("3 50\n\n0 7\n1\t2\n")
    counts = read_counts(path)
    assert counts.groups["all"].tolist() == [7, 2, 0, 50]
    assert counts.tokenizer == ""
    assert read_counts(path, vocabulary_size=6).total.tolist() == [7, 2, 0, 50, 0, 0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("3 50\n3 4\n", "2: the id 3 stands twice"),
        ("16777216 1\n", "1: expected an id below 16777216, got 16777216"),
        ("-1 1\n", "1: expected `id count`, got"),
        ("1 nan\n", "1: expected `id count`, got"),
        ("1 2 3\n", "1: expected `id count`, got"),
        ("1 9999999999999999999\n", "1: expected `id count`, got"),
        ("9" * 5000, "1: expected `id count`, got"),
        ("", " the file holds no counts"),
        ("\n\n", " the file holds no counts"),
    ],
)
def test_text_that_cannot_be_used(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "freq.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{path}:{reason}"):
        read_counts(path)
    if "16777216" in text:
        with pytest.raises(ValueError, match=r"expected an id below 10"):
            read_counts(path, vocabulary_size=10)


def test_counts_of_the_authors(data_dir: Path) -> None:
    counts = read_counts(data_dir / "tok/openba_vocab_freq.txt")
    ranked = np.sort(counts.total)[::-1]
    assert round(100 * ranked[:50_000].sum() / counts.tokens, 3) == 98.803
