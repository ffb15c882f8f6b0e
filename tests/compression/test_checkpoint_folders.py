"""`compression.checkpoint_folders`: tensors of a folder, and folders that hold none."""

import json
import os
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lmcore.compression.checkpoint_folders import read_checkpoint

TYPES = [
    torch.bool, torch.uint8, torch.int8, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e8m0fnu, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.int16, torch.uint16,
    torch.float16, torch.bfloat16, torch.int32, torch.uint32, torch.float32, torch.int64,
    torch.uint64, torch.float64, torch.complex64,
]  # fmt: skip


INDEX = "model.safetensors.index.json"


def make_tensor(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """Of random bits."""
    generator = torch.Generator().manual_seed(seed)
    high = 2 if dtype == torch.bool else 256
    size = (*shape[:-1], shape[-1] * dtype.itemsize)
    return torch.randint(high, size, dtype=torch.uint8, generator=generator).view(dtype)


def write_index(folder: Path, weight_map: Any, whole: str = "model.safetensors") -> None:
    content = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / f"{whole}.index.json").write_text(content)


def test_bin_and_safetensors_hold_the_same(tmp_path: Path) -> None:
    """All types, bit for bit, also of tensors that share memory or lie in it by columns."""
    tensors = {str(dtype): make_tensor(dtype, 3, 4) for dtype in TYPES}
    base = make_tensor(torch.bfloat16, 6, 4)
    tensors |= {"turned": base.T, "part": base[1:3], "steps": base[::2, ::3], "base": base}
    tensors |= {"one": torch.tensor(1.5), "none": torch.zeros(0, 3)}
    (tmp_path / "bin").mkdir()
    torch.save(OrderedDict(tensors), tmp_path / "bin/pytorch_model.bin")
    (tmp_path / "st").mkdir()
    copies = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(copies, tmp_path / "st/model.safetensors")
    ours, theirs = (
        read_checkpoint(tmp_path / "bin").tensors,
        read_checkpoint(tmp_path / "st").tensors,
    )
    assert set(ours) == set(theirs) == set(tensors)
    for name, tensor in ours.items():
        other = theirs[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape)
        assert tensor.elements.tobytes() == other.elements.tobytes()
        raw = copies[name].reshape(-1).view(torch.uint8) if tensor.shape else copies[name]
        assert other.elements.tobytes() == raw.numpy().tobytes()
        with pytest.raises(ValueError, match="read-only"):
            tensor.elements[...] = tensor.elements


@pytest.mark.parametrize("end", ["bin", "safetensors"])
def test_shards_are_one_checkpoint(tmp_path: Path, end: str) -> None:
    whole = "pytorch_model.bin" if end == "bin" else "model.safetensors"
    shards = {"a": {"x": torch.ones(2)}, "b": {"y": torch.zeros(3), "z": torch.zeros(1)}}
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, tensors in shards.items():
        if end == "bin":
            torch.save(tensors, blobs / name)
        else:
            save_file(tensors, blobs / name)
        # As the cache of the Hub has it.
        (folder / f"{name}.{end}").symlink_to(Path("../blobs") / name)
    write_index(folder, {"x": f"a.{end}", "y": f"b.{end}", "z": f"b.{end}"}, whole)
    found = read_checkpoint(folder)
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == {
        "x": (2,), "y": (3,), "z": (1,),
    }  # fmt: skip
    found.check()
    os.utime(blobs / "b", ns=(0, 0))
    with pytest.raises(ValueError, match=f"^{folder}: changed while it was read$"):
        found.check()
    assert read_checkpoint(folder).fingerprint != found.fingerprint


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for name in "ab":
        save_file({name: torch.ones(2)}, tmp_path / f"{name}.safetensors")
    write_index(tmp_path, {"a": "a.safetensors", "b": "b.safetensors"})
    return tmp_path


def test_a_shard_that_lacks(sharded: Path) -> None:
    (sharded / "b.safetensors").unlink()
    text = r"b\.safetensors: is missing, and model\.safetensors\.index\.json names it$"
    with pytest.raises(ValueError, match=text):
        read_checkpoint(sharded)


def test_a_shard_that_is_cut_short(sharded: Path) -> None:
    path = sharded / "b.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"^{path}: not a whole safetensors file: expected"):
        read_checkpoint(sharded)


@pytest.mark.parametrize(
    ("weight_map", "text"),
    [
        ({"a": "a.safetensors"}, "^{}/model.safetensors.index.json does not .*b"),
        (
            {"a": "a.safetensors", "b": "b.safetensors", "c": "b.safetensors"},
            r"^{}/b\.safetensors: lacks c, which model\.safetensors\.index\.json says it holds$",
        ),
        (
            {"a": "b.safetensors", "b": "a.safetensors"},
            r"^{}/b\.safetensors: lacks a, which",
        ),
        ({"a": "../a.safetensors"}, r"index\.json: 'a' lies in no file of it: '\.\./a"),
        ({"a": "/etc/passwd"}, r"index\.json: 'a' lies in no file of it: '/etc/passwd'$"),
        ({"a": "passwd"}, r"index\.json: 'a' lies in no \.safetensors: 'passwd'$"),
        ({"a": ["b.safetensors"]}, r"index\.json: 'a' lies in no file"),
        ({"a": "b\0.safetensors"}, r"index\.json: 'a' lies in no file"),
        ({}, "index.json: not an index of tensors: it has no weight_map$"),
        ([], "index.json: not an index of tensors: it has no weight_map$"),
    ],
)
def test_indices_that_do_not_fit(sharded: Path, weight_map: Any, text: str) -> None:
    write_index(sharded, weight_map)
    if weight_map == {"a": "a.safetensors"}:
        assert set(read_checkpoint(sharded).tensors) == {"a"}
        return
    with pytest.raises(ValueError, match=text.format(sharded)):
        read_checkpoint(sharded)


def test_names_that_stand_twice(sharded: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, sharded / "b.safetensors")
    with pytest.raises(ValueError, match=r"b\.safetensors: holds a, which a\.safetensors holds to"):
        read_checkpoint(sharded)
    save_file({"b": torch.ones(2), "c": torch.ones(2)}, sharded / "b.safetensors")
    text = r"b\.safetensors: holds c, which model\.safetensors\.index\.json does not name$"
    with pytest.raises(ValueError, match=text):
        read_checkpoint(sharded)
    (sharded / "model.safetensors.index.json").write_text('{"weight_map": {"a": "", "a": ""}}')
    with pytest.raises(ValueError, match=r"index\.json: not an index .* 'a' stands twice$"):
        read_checkpoint(sharded)


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    text = (
        f"^{tmp_path}: holds neither model.safetensors, nor model.safetensors.index.json, nor "
        "pytorch_model.bin, nor pytorch_model.bin.index.json$"
    )
    with pytest.raises(ValueError, match=text):
        read_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=f"^{tmp_path}/none: not a folder$"):
        read_checkpoint(tmp_path / "none")
    os.mkfifo(tmp_path / INDEX)
    with pytest.raises(ValueError, match=f"^{tmp_path / INDEX}: not a regular file$"):
        read_checkpoint(tmp_path)
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"^{tmp_path}: holds no tensor$"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to("none")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        read_checkpoint(tmp_path)


class Call:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("called"),)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([torch.ones(2)], "not a file of weights: it holds a list$"),
        ({"a": {"b": torch.ones(2)}}, "a is no tensor: dict$"),
        ({1: torch.ones(2)}, "a tensor has a name, of UTF-8: got int$"),
        ({"": torch.ones(2)}, "a tensor has a name, of UTF-8: got str$"),
        ({"a": torch.ones(2).to_sparse()}, "a is no plain tensor: torch.sparse_coo cpu$"),
        ({"a": torch.ones(1).expand(2**40)}, r"a has the shape \[1099511627776\], and the file"),
        ({"a": torch.ones(2, dtype=torch.complex64).conj()}, "a has the unknown type"),
        ({"a": torch.ones(2, dtype=torch.complex128)}, "a has the unknown type torch.complex128$"),
        ({"a": Call()}, "not a file of weights: Weights only load failed"),
    ],
    ids=["list", "nested", "number", "empty", "sparse", "huge", "conjugated", "complex", "call"],
)
def test_files_of_torch_that_hold_something_else(tmp_path: Path, content: Any, text: str) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=text) as error:
        read_checkpoint(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/pytorch_model.bin: ")
    assert not Path("called").exists()


def test_files_of_torch_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for content in (b"", b"abc", b"\x80abc", whole[:100], whole[:-30], whole[100:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{path}: (not a file of weights: |has torch's old)"):
            read_checkpoint(tmp_path)
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="has torch's old format, which cannot be mapped: load"):
        read_checkpoint(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file"):
        read_checkpoint(tmp_path)


def test_a_file_of_torch_that_says_more_than_it_holds(tmp_path: Path) -> None:
    """Its pickle speaks of a thousand numbers where four lie."""
    path, other = tmp_path / "pytorch_model.bin", tmp_path / "other"
    torch.save({"a": torch.ones(1000)}, other)
    with zipfile.ZipFile(other) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(
                name.replace("other", "pytorch_model"), data[:16] if "/data/0" in name else data
            )
    try:
        found = read_checkpoint(tmp_path).tensors["a"]
    except ValueError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
    else:
        assert len(found.elements.tobytes()) == found.bytes
