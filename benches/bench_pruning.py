"""Cutting a folder of weights into another one, against `cp` of what comes out.

`cp` reads and writes the bytes that are kept and no others, in one piece: it is a bound, not a
contender. Weights are random bits of a model of 24 layers, and an embedding, in bf16.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from lmcore._safetensors import make_header
from lmcore.compression.cuts import TensorCut, apply_cut
from lmcore.compression.shards import cut_checkpoint
from timing import Row, compare, print_conditions, save

LAYERS, HIDDEN, HEAD, PIECES = 24, 2048, 128, 60_000
GOAL = "0.6"
MATRICES = [f"layers.{layer}.{name}" for layer in range(LAYERS) for name in "qkvo"]


def make_folder(folder: Path) -> dict[str, np.ndarray]:
    """Writes the folder, and returns its tensors, mapped."""
    folder.mkdir()
    shapes = {"embedding": (PIECES, HIDDEN), **dict.fromkeys(MATRICES, (HIDDEN, HIDDEN))}
    header = make_header({name: ("BF16", shape) for name, shape in shapes.items()})
    path = folder / "model.safetensors"
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(header)
        for rows, columns in shapes.values():
            file.write(rng.bytes(2 * rows * columns))
    content = np.memmap(path, np.uint16, "r", len(header))
    ends = np.cumsum([rows * columns for rows, columns in shapes.values()])
    parts = np.split(content, ends[:-1])
    return {n: p.reshape(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}


def make_cases() -> dict[str, list[TensorCut]]:
    """Cuts by what they keep."""
    rng = np.random.default_rng(1)

    def choose(count: int, size: int) -> np.ndarray:
        return np.sort(rng.permutation(size)[:count])

    def cut(names: list[str], *keep: np.ndarray | None) -> list[TensorCut]:
        return [TensorCut(source=name, target=name, keep=keep) for name in names]

    heads = (choose(12, HIDDEN // HEAD)[:, None] * HEAD + np.arange(HEAD)).ravel()
    hidden = choose(1536, HIDDEN)
    return {
        "16 of 24 layers": cut(MATRICES[: 16 * 4]),
        "rows of 12 of 16 heads": cut(MATRICES, heads, None),
        "columns of 12 of 16 heads": cut(MATRICES, None, heads),
        "1536 of 2048 rows": cut(MATRICES, hidden, None),
        "1536 of 2048 columns": cut(MATRICES, None, hidden),
        "1536 of 2048 rows and columns": cut(MATRICES, hidden, hidden),
        "half of the vocabulary, by frequency": cut(
            ["embedding"], rng.permutation(PIECES)[: PIECES // 2], None
        ),
    }


def compare_case(
    base: Path, tensors: dict[str, np.ndarray], name: str, cuts: list[TensorCut]
) -> Row:
    """One cut against a copy of its outcome."""
    target, copy = base / "target", base / "copy"

    def run() -> None:
        shutil.rmtree(target, ignore_errors=True)
        cut_checkpoint(base / "source", target, cuts)

    run()
    file = target / "model.safetensors"
    content = np.memmap(file, np.uint8, "r")
    place = 8 + int.from_bytes(content[:8].tobytes(), "little")
    for one in cuts:
        expected = apply_cut(tensors[one.source], one).reshape(-1).view(np.uint8)
        if not np.array_equal(content[place : place + expected.size], expected):
            raise AssertionError(f"{one.source}: other bytes than the definition's")
        place += expected.size
    shutil.copyfile(file, base / "bytes")
    (row,) = compare(
        "pruning", f"{name}, {place / 1e9:.2f} GB",
        ("cp", lambda: subprocess.run(["cp", base / "bytes", copy], check=True)),
        ("cut_checkpoint", run, GOAL), rounds=9, repeats=1,
    )  # fmt: skip
    return row


def main() -> None:
    """Times all cases, in a folder that may be named."""
    print_conditions()
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    with tempfile.TemporaryDirectory(dir=folders[0] if folders else None) as name:
        base = Path(name)
        tensors = make_folder(base / "source")
        rows = [compare_case(base, tensors, *case) for case in make_cases().items()]
    save("pruning", rows)


if __name__ == "__main__":
    main()
