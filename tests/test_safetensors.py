"""`lmcore._safetensors`: what the format's own reader takes, and nothing else."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from lmcore._safetensors import WIDTHS, make_header, read_header

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


LENIENT: list[Any] = [
    {"": ENTRY},
    {"a": {**ENTRY, "more": 1}},
    {"a": {**ENTRY, "shape": [1] * 65 + [2]}},
]


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters='"\\'), min_size=1, max_size=6
).filter(lambda name: name != "__metadata__")


@settings(deadline=None)
@given(
    st.dictionaries(
        names,
        st.tuples(st.sampled_from(sorted(WIDTHS)), st.lists(st.integers(0, 3), max_size=3)),
        max_size=4,
    )
)
def test_headers_are_those_of_the_format(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[str, list[int]]]
) -> None:
    path = tmp_path_factory.mktemp("header") / "a.safetensors"
    sizes = {n: WIDTHS[d] * int(torch.tensor(s).prod()) for n, (d, s) in tensors.items()}
    header = make_header(tensors)
    path.write_bytes(header + bytes(range(256))[: sum(sizes.values())].ljust(sum(sizes.values())))
    found = read_header(path)
    assert {name: (e.dtype, list(e.shape)) for name, e in found.items()} == tensors
    assert {name: entry.bytes for name, entry in found.items()} == sizes
    assert [e.offset for e in found.values()] == [
        len(header) + sum(list(sizes.values())[:place]) for place in range(len(sizes))
    ]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(tensors)
        for name in tensors:
            assert file.get_slice(name).get_shape() == tensors[name][1]
            assert file.get_slice(name).get_dtype() == tensors[name][0]


def test_files_of_the_format_are_read(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bool)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"x": "y"})
    content = (tmp_path / "a.safetensors").read_bytes()
    for name, entry in read_header(tmp_path / "a.safetensors").items():
        data = content[entry.offset : entry.offset + entry.bytes]
        assert data == tensors[name].numpy().tobytes()


@pytest.mark.parametrize(
    ("header", "data", "text"),
    [
        (b"", b"", "Expecting value"),
        (b"[]", b"", "its header is no JSON object"),
        (b"[" * 200_000, b"", "nested too deeply"),
        (b"\xff", b"", "can't decode byte"),
        (b'{"a": NaN}', b"", "NaN is no number"),
        (b'{"a": ' + b"9" * 5000 + b"}", b"", "Exceeds the limit"),
        ({"\ud800": ENTRY}, b"x" * 8, "is no name of a tensor"),
        ({"": ENTRY}, b"x" * 8, "'' is no name of a tensor"),
        ({"a": 1}, b"", "'a' must have dtype, shape and data_offsets: got 1"),
        ({"a": {**ENTRY, "more": 1}}, b"x" * 8, "must have dtype, shape and data_offsets"),
        ({"a": {**ENTRY, "dtype": "F4"}}, b"x" * 8, "'a' has the unknown type 'F4'"),
        ({"a": {**ENTRY, "dtype": ["F32"]}}, b"x" * 8, r"unknown type \['F32'\]"),
        ({"a": {**ENTRY, "shape": [-2]}}, b"x" * 8, r"'a' has no shape: \[-2\]"),
        ({"a": {**ENTRY, "shape": [2.0]}}, b"x" * 8, "no shape"),
        ({"a": {**ENTRY, "shape": [True, 2]}}, b"x" * 8, "no shape"),
        ({"a": {**ENTRY, "shape": [1] * 65 + [2]}}, b"x" * 8, "no shape"),
        ({"a": {**ENTRY, "shape": [2**40]}}, b"x" * 8, "'a' takes 4398046511104 bytes"),
        ({"a": {**ENTRY, "shape": [2**62, 2**62]}}, b"x" * 8, "takes 8507059173023461586584365"),
        ({"a": {**ENTRY, "data_offsets": [8, 0]}}, b"x" * 8, r"'a' has no place: \[8, 0\]"),
        ({"a": {**ENTRY, "data_offsets": [0]}}, b"x" * 8, "no place"),
        ({"a": {**ENTRY, "data_offsets": [4, 12]}}, b"x" * 12, "'a' leaves a hole before it"),
        (
            {"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}},
            b"x" * 12,
            "'b' overlaps the one before it: it begins at 4, not at 8",
        ),
        ({"a": ENTRY}, b"x" * 7, "expected 77 bytes as its header says, got 76"),
        ({"a": ENTRY}, b"x" * 9, "expected 77 bytes as its header says, got 78"),
        (
            b'{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "a": 1}',
            b"",
            "the key 'a' stands twice",
        ),
    ],
)
def test_damaged_headers(tmp_path: Path, header: Any, data: bytes, text: str) -> None:
    path = write(tmp_path / "a.safetensors", header, data)
    with pytest.raises(ValueError, match=text) as error:
        read_header(path)
    assert str(error.value).startswith(f"{path}: not a whole safetensors file: ")
    # What the format's own reader refuses as well; it takes the others.
    if header not in LENIENT:
        with pytest.raises(SafetensorError):
            load_file(path)


@pytest.mark.parametrize("length", [3, 2**40, 2**63, 2**64 - 1])
def test_lengths_that_are_none(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "a.safetensors", b"{}", length=length)
    with pytest.raises(ValueError, match=f"its header has {length} bytes, and the file 10$"):
        read_header(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"1234567")
    with pytest.raises(ValueError, match=r"a\.safetensors: not a safetensors file: it has 7 bytes"):
        read_header(path)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(ValueError, match=f"^{other}: not a regular file$"):
            read_header(other)
    with pytest.raises(FileNotFoundError, match="none"):
        read_header(tmp_path / "none")
    with pytest.raises(OSError, match=str(tmp_path)):
        read_header(tmp_path)


def test_a_header_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmcore._safetensors.MOST_HEADER_BYTES", 64)
    with pytest.raises(ValueError, match="a header has at most 64 bytes: got 88"):
        make_header({"a": ("F32", (2,))})
