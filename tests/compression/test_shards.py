"""`compression.shards`: a folder is cut into another one, whole at the end or gone on with."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import warm
from lmcore import _shards
from lmcore._files import FolderLock
from lmcore._safetensors import make_header
from lmcore.compression import shards
from lmcore.compression.cuts import TensorCut, apply_cut
from lmcore.compression.shards import CutSummary, cut_checkpoint

INDEX = "model.safetensors.index.json"
TENSORS = {
    "emb": torch.arange(40 * 6, dtype=torch.int16).reshape(40, 6).view(torch.bfloat16),
    "wi": torch.arange(6 * 8.0).reshape(6, 8),
    "flag": torch.tensor([True, False, True]),
    "scale": torch.tensor(2.5, dtype=torch.float16),
    "wo": torch.arange(8 * 6.0, dtype=torch.float64).reshape(8, 6),
}
CUTS = [
    TensorCut(source="emb", target="shared", keep=(np.array([39, 0, 7, 7, 8]), np.arange(4))),
    TensorCut(source="flag", target="flag", keep=(np.array([2, 1]),)),
    TensorCut(source="wi", target="wi", keep=(np.arange(4), np.array([6, 7, 0, 1]))),
    TensorCut(source="wi", target="wi.again"),
    TensorCut(source="scale", target="scale"),
]
EXPECTED = {cut.target: apply_cut(TENSORS[cut.source], cut) for cut in CUTS}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    save_file(TENSORS, folder / "model.safetensors")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def load(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a folder, as transformers finds them."""
    if (folder / "model.safetensors").exists():
        return load_file(folder / "model.safetensors")
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    found: dict[str, torch.Tensor] = {}
    for file in sorted(set(weight_map.values())):
        found |= load_file(folder / file)
    assert {name: weight_map[name] for name in found} == weight_map
    return found


def assert_whole(folder: Path) -> None:
    found = load(folder)
    assert set(found) == set(EXPECTED)
    for name, tensor in EXPECTED.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].numpy(force=True).tobytes() if tensor.dtype != torch.bfloat16 else True
        assert torch.equal(found[name].view(torch.uint8) if tensor.dim() else found[name],
                           tensor.view(torch.uint8) if tensor.dim() else tensor)  # fmt: skip
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("size", [1, 60, 130, 10_000])
@pytest.mark.parametrize("form", ["safetensors", "bin", "shards"])
def test_what_is_written_is_what_the_definition_keeps(
    source: Path, target: Path, size: int, form: str
) -> None:
    if form == "bin":
        (source / "model.safetensors").unlink()
        torch.save(TENSORS, source / "pytorch_model.bin")
    elif form == "shards":
        (source / "model.safetensors").unlink()
        names = list(TENSORS)
        for place, name in enumerate(names):
            save_file({name: TENSORS[name]}, source / f"{place}.safetensors")
        weight_map = {name: f"{place}.safetensors" for place, name in enumerate(names)}
        (source / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    told: list[tuple[int, int]] = []
    summary = cut_checkpoint(
        source, target, CUTS, max_shard_bytes=size, progress=lambda *done: told.append(done)
    )
    assert_whole(target)
    sizes = [(target / name).stat().st_size for name in summary.files]
    assert told[-1] == (sum(sizes), sum(sizes)) == (summary.bytes, summary.bytes)
    assert told == sorted(told)
    parameters = sum(tensor.numel() for tensor in EXPECTED.values())
    assert summary == CutSummary(
        files=summary.files, kept_files=0, tensors=5, parameters=parameters, bytes=sum(sizes)
    )
    count = {1: 5, 60: 4, 130: 3, 10_000: 1}[size]
    assert len(summary.files) == count
    if count == 1:
        assert sorted(read_files(target)) == summary.files == ["model.safetensors"]
        return
    assert summary.files == [
        f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)
    ]
    assert sorted(read_files(target)) == sorted([*summary.files, INDEX])
    index = json.loads((target / INDEX).read_text())
    total = sum(tensor.nbytes for tensor in EXPECTED.values())
    assert index["metadata"] == {"total_parameters": parameters, "total_size": total}
    assert list(index["weight_map"]) == list(EXPECTED)


def test_a_shard_takes_what_fits(source: Path, target: Path) -> None:
    """The first two tensors have 42 bytes."""
    for size, expected in ((42, {"shared", "flag"}), (41, {"shared"})):
        folder = target / str(size)
        files = cut_checkpoint(source, folder, CUTS, max_shard_bytes=size).files
        assert set(load_file(folder / files[0])) == expected


def test_tensors_of_a_file_begin_at_multiples_of_their_width(source: Path, target: Path) -> None:
    cut_checkpoint(source, target, CUTS)
    content = (target / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert length % 8 == 0
    for name, entry in header.items():
        assert entry["data_offsets"][0] % EXPECTED[name].itemsize == 0


# Runs that end early.


class Killed(BaseException):
    """As nothing of ours catches it."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], bool]:
    """Runs something that ends as by kill -9 at the n-th call that changes the disk.

    Nothing is tidied up then: no later change of the disk is carried out.
    """

    def run(count: int, call: Callable[[], object]) -> bool:
        left = [count]

        def counting(function: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **more: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return function(*arguments, **more)

            return counted

        with monkeypatch.context() as patch:
            for owner, name in [
                (os, "write"), (os, "copy_file_range"), (Path, "replace"), (Path, "unlink"),
                (Path, "mkdir"), (Path, "chmod"), (shards, "open"),
            ]:  # fmt: skip
                function = open if name == "open" else getattr(owner, name)
                patch.setattr(owner, name, counting(function), raising=False)
            try:
                call()
            except Killed:
                return True
        return False

    return run


@pytest.mark.parametrize("size", [60, 10_000])
def test_a_kill_between_any_two_changes(
    source: Path, tmp_path: Path, kill: Callable[..., bool], size: int
) -> None:
    """What is left does not look like a model, and the next start makes the same bytes of it."""
    cut_checkpoint(source, tmp_path / "whole", CUTS, max_shard_bytes=size)
    expected = read_files(tmp_path / "whole")
    last = "model.safetensors" if size == 10_000 else INDEX
    count, kept = 0, set()
    while True:
        target = tmp_path / f"target{count}"
        was_killed = kill(
            count, lambda to=target: cut_checkpoint(source, to, CUTS, max_shard_bytes=size)
        )
        if not was_killed:
            break
        if target.exists() and last in (left := read_files(target)):
            assert {name: left[name] for name in expected} == expected
        if any(name in expected for name in (read_files(target) if target.exists() else ())):
            kept.add(count)
        if not (target / last).exists() or (target / _shards.JOURNAL).exists():
            cut_checkpoint(source, target, CUTS, max_shard_bytes=size)
        left = read_files(target)
        left.pop(_shards.LOCK, None)  # whose removal was the change
        assert left == expected
        count += 1
    assert count > 10
    assert kept


def stop_at(source: Path, target: Path, done: int) -> None:
    """A run that ends once so many files are written."""

    def stop(written: int, total: int) -> None:
        files = [path for path in target.iterdir() if path.name.startswith("model-")]
        if len(files) == done:
            raise Killed

    with pytest.raises(Killed):
        cut_checkpoint(source, target, CUTS, max_shard_bytes=60, progress=stop)
    assert not (target / INDEX).exists()


def test_whole_shards_are_kept(source: Path, target: Path) -> None:
    stop_at(source, target, 2)
    assert not (target / _shards.PART).exists()
    times = {path.name: path.stat().st_mtime_ns for path in target.glob("model-*")}
    told: list[tuple[int, int]] = []
    summary = cut_checkpoint(
        source, target, CUTS, max_shard_bytes=60, progress=lambda *done: told.append(done)
    )
    assert (summary.kept_files, len(times)) == (2, 2)
    assert {name: (target / name).stat().st_mtime_ns for name in times} == times
    assert told[0][0] == sum((target / name).stat().st_size for name in times)
    assert told[-1] == (summary.bytes, summary.bytes)
    assert_whole(target)


@pytest.mark.parametrize("damage", ["bit", "shorter", "exchanged", "gone"])
def test_shards_that_have_changed_are_written_anew(source: Path, target: Path, damage: str) -> None:
    stop_at(source, target, 2)
    first, second = sorted(target.glob("model-*"))
    if damage == "bit":
        content = bytearray(first.read_bytes())
        content[-1] ^= 1
        first.write_bytes(content)
    elif damage == "shorter":
        os.truncate(first, 90)
    elif damage == "exchanged":
        first.rename(target / "x"), second.rename(first), (target / "x").rename(second)
    else:
        first.unlink()
    kept = cut_checkpoint(source, target, CUTS, max_shard_bytes=60).kept_files
    assert kept == (0 if damage == "exchanged" else 1)
    assert_whole(target)


def test_another_run_is_not_gone_on_with(source: Path, target: Path) -> None:
    stop_at(source, target, 1)
    before = read_files(target)
    others: dict[str, Callable[..., CutSummary]] = {
        "max_shard_bytes": lambda **more: cut_checkpoint(
            source, target, CUTS, max_shard_bytes=61, **more
        ),
        "cuts": lambda **more: cut_checkpoint(
            source, target, CUTS[:-1], max_shard_bytes=60, **more
        ),
    }
    text = "holds the beginning of weights that were made with another {}: choose another folder, "
    for name, call in others.items():
        with pytest.raises(FileExistsError, match=text.format(name)):
            call()
    shared = TensorCut(source="emb", target="shared", keep=(np.arange(5), np.arange(4)))
    with pytest.raises(FileExistsError, match=text.format("cuts")):
        cut_checkpoint(source, target, [shared, *CUTS[1:]], max_shard_bytes=60)
    assert read_files(target) == before
    os.utime(source / "model.safetensors", ns=(0, 0))
    with pytest.raises(FileExistsError, match=text.format("source")):
        cut_checkpoint(source, target, CUTS, max_shard_bytes=60)
    assert cut_checkpoint(source, target, CUTS, max_shard_bytes=61, resume=False).kept_files == 0
    assert_whole(target)


def test_journals_that_are_none(source: Path, target: Path) -> None:
    target.mkdir()
    outside = target.parent / "model.safetensors"
    outside.write_text("x")
    recipe = {"recipe": {}}
    for content, text in [
        ("{", "not a journal of weights: Expecting"),
        ("[]", "has other keys"),
        (json.dumps({**recipe, "files": []}), "has other keys"),
        (json.dumps({**recipe, "files": {"../model.safetensors": [1, 1]}}), "'../model.safet"),
        (json.dumps({**recipe, "files": {"config.json": [1, 1]}}), "'config.json'"),
    ]:
        (target / _shards.JOURNAL).write_text(content)
        for resume in (True, False):
            with pytest.raises(ValueError, match=text):
                cut_checkpoint(source, target, CUTS, resume=resume)
    assert outside.read_text() == "x"
    (target / _shards.JOURNAL).unlink()
    os.mkfifo(target / _shards.JOURNAL)
    with pytest.raises(ValueError, match=r"it is no regular file; remove it$"):
        cut_checkpoint(source, target, CUTS)


# Folders.


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", INDEX, "model-00001-of-00002.safetensors", "x.safetensors",
     "pytorch_model.bin", "pytorch_model.bin.index.json", "adapter.safetensors"],
)  # fmt: skip
def test_folders_with_weights_stay_as_they_are(source: Path, target: Path, name: str) -> None:
    target.mkdir()
    (target / "config.json").write_text("{}")
    (target / name).symlink_to("none")
    for resume in (True, False):
        with pytest.raises(FileExistsError, match=f"^{target}: holds {name} already: choose"):
            cut_checkpoint(source, target, CUTS, resume=resume)
    assert sorted(path.name for path in target.iterdir()) == sorted(["config.json", name])


def test_what_is_done_is_not_done_again(source: Path, target: Path) -> None:
    cut_checkpoint(source, target, CUTS)
    before = read_files(target)
    with pytest.raises(FileExistsError, match=r"holds model\.safetensors already"):
        cut_checkpoint(source, target, CUTS)
    assert read_files(target) == before


def test_other_files_stay(source: Path, target: Path) -> None:
    target.mkdir()
    (target / "config.json").write_text("{}")
    cut_checkpoint(source, target, CUTS)
    assert read_files(target)["config.json"] == b"{}"


def test_the_output_is_no_input(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    before = read_files(source)
    for folder in (source, tmp_path / "link", source / ".." / "source"):
        with pytest.raises(ValueError, match=r"the output is an input too$"):
            cut_checkpoint(source, folder, CUTS)
    assert read_files(source) == before
    (tmp_path / "real").mkdir()
    (tmp_path / "other").symlink_to(tmp_path / "real")
    cut_checkpoint(source, tmp_path / "other", CUTS)
    assert_whole(tmp_path / "real")
    with pytest.raises(FileExistsError):
        cut_checkpoint(source, source / "model.safetensors", CUTS)


def test_a_link_in_place_of_a_part_is_not_followed(source: Path, target: Path) -> None:
    target.mkdir()
    victim = target.parent / "victim"
    victim.write_text("x")
    for name in (_shards.PART, _shards.NEW_JOURNAL):
        (target / name).symlink_to(victim)
    cut_checkpoint(source, target, CUTS)
    assert victim.read_text() == "x"
    assert_whole(target)


def test_one_process_writes(source: Path, target: Path) -> None:
    target.mkdir()
    text = f"^{target}: another process is writing weights into it$"
    with FolderLock(target, doing="x", file=_shards.LOCK).hold():
        with pytest.raises(FileExistsError, match=text):
            cut_checkpoint(source, target, CUTS)
        assert [path.name for path in target.iterdir()] == [_shards.LOCK]
    cut_checkpoint(source, target, CUTS)
    assert_whole(target)


def test_a_full_disk(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there stays whole, and the next start goes on."""
    left = [700]
    write = os.write

    def write_some(descriptor: int, data: Any) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(descriptor, memoryview(data)[: left[0]])
        left[0] -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_some)
        patch.delattr(os, "copy_file_range", raising=False)
        with pytest.raises(OSError, match="No space left on device") as error:
            cut_checkpoint(source, target, CUTS, max_shard_bytes=60)
    assert error.value.filename.startswith(f"{target}/")
    kept = [path.name for path in target.glob("model-*")]
    assert kept
    assert {path.name for path in target.iterdir()} == {*kept, _shards.JOURNAL}
    assert cut_checkpoint(source, target, CUTS, max_shard_bytes=60).kept_files == len(kept)
    assert_whole(target)


# What cannot be cut.


@pytest.mark.parametrize(
    ("cuts", "kind", "text"),
    [
        ([], ValueError, "^give at least one cut: got none$"),
        ([TensorCut(source="no", target="a")], ValueError, "source: has no tensor no$"),
        ([*CUTS, CUTS[0]], ValueError, "^two cuts are written as shared$"),
        (
            [TensorCut(source="wi", target="__metadata__")],
            ValueError,
            "^a tensor must not be written as __metadata__$",
        ),
        (
            [*CUTS, TensorCut(source="wo", target="wo", keep=(None, np.array([6])))],
            IndexError,
            "^wo: index 6 on axis 1, which has 6 of them$",
        ),
        (
            [TensorCut(source="wo", target="wo", keep=(None,))],
            ValueError,
            r"^wo: the cut has 1 axes, and the tensor \[8, 6\]$",
        ),
    ],
)
def test_cuts_that_do_not_fit(source: Path, target: Path, cuts: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        cut_checkpoint(source, target, cuts)
    assert not target.exists()


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_that_are_none(source: Path, target: Path, size: int) -> None:
    with pytest.raises(ValueError, match=f"^max_shard_bytes must be at least 1: got {size}$"):
        cut_checkpoint(source, target, CUTS, max_shard_bytes=size)


def test_a_source_that_changes(source: Path, target: Path) -> None:
    def touch(done: int, total: int) -> None:
        os.utime(source / "model.safetensors", ns=(0, 0))

    with pytest.raises(ValueError, match=f"^{source}: changed while it was read$"):
        cut_checkpoint(source, target, CUTS, progress=touch)
    assert not (target / "model.safetensors").exists()


def test_a_file_that_is_too_short_gets_no_name(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "write_cuts", lambda file, cuts: file.write(b"x"))
    with pytest.raises(ValueError, match=r"model\.safetensors: expected \d+ bytes, got \d+$"):
        cut_checkpoint(source, target, CUTS)
    assert [path.name for path in target.iterdir()] == [_shards.JOURNAL]


def test_nothing_may_be_kept(source: Path, target: Path) -> None:
    none = np.zeros(0, np.int64)
    cut_checkpoint(source, target, [TensorCut(source="wo", target="wo", keep=(None, none))])
    assert load_file(target / "model.safetensors")["wo"].shape == (8, 0)


# Large folders.

LIMITED = """
import resource, sys, numpy as np
from lmcore.compression.cuts import TensorCut
from lmcore.compression.shards import cut_checkpoint

cuts = [TensorCut(source="emb", target="emb", keep=(np.arange(9000, 0, -9), None))]
keep = (np.arange(7, 207, 2), np.arange(0, 8192, 9))
cuts += [TensorCut(source=f"w{n}", target=f"w{n}", keep=keep) for n in range(28)]
with open("/proc/self/status") as file:
    used = next(int(line.split()[1]) for line in file if line.startswith("VmData")) * 1024
limit = used + int(sys.argv[3])
assert "torch" not in sys.modules
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
print(cut_checkpoint(sys.argv[1], sys.argv[2], cuts).bytes)
"""


def make_large(folder: Path, matrices: int) -> int:
    """A folder whose zeros take no place on the disk, and its size."""
    folder.mkdir()
    weight_map, total = {}, 0
    shapes = {"emb": (300_000, 4096)} | {f"w{n}": (8000, 8192) for n in range(matrices)}
    for place, (name, shape) in enumerate(shapes.items()):
        file = f"{place}.safetensors"
        header = make_header({name: ("BF16", shape)})
        with (folder / file).open("wb") as opened:
            opened.write(header)
            opened.truncate(len(header) + 2 * shape[0] * shape[1])
        total += (folder / file).stat().st_size
        weight_map[name] = file
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory that is no file as Linux does")
def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    """Less of it than any tensor takes, where the system gives no more."""
    size = make_large(tmp_path / "source", 28)
    assert size > 6e9
    command = [sys.executable, "-c", LIMITED, tmp_path / "source", tmp_path / "target", "48000000"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 1000 * 4096 * 2


KILLED = """
import os, signal, sys
from lmcore.compression.cuts import TensorCut
from lmcore.compression.shards import cut_checkpoint

cuts = [TensorCut(source=name, target=name) for name in ("emb", "wi", "flag", "scale", "wo")]
cut_checkpoint(
    sys.argv[1], sys.argv[2], cuts, max_shard_bytes=60,
    progress=lambda done, total: done > 800 and os.kill(os.getpid(), signal.SIGKILL),
)
"""


def test_kill_in_the_middle(source: Path, target: Path) -> None:
    """A process that is killed where it stands, and one that goes on."""
    process = warm.start(KILLED, source, target)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert (target / _shards.PART).exists()
    assert not (target / INDEX).exists()
    cuts = [TensorCut(source=name, target=name) for name in TENSORS]
    assert cut_checkpoint(source, target, cuts, max_shard_bytes=60).kept_files == 1
    found = load(target)
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert [path.name for path in target.iterdir() if path.name.startswith(".")] == []
