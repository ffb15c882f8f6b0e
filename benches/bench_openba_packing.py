"""Packing text into groups, against the tokenizer alone; reading groups, against np.memmap.

The text is generated: documents of both languages, cut by a Unigram file with byte fallback. The
tokenizer alone gets the same batches, with nothing read, written or remembered. Memory is the most
that a process of its own took, for a text and for one of ten times its length.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from lmcore.openba import IndexedDataset, OpenBATokenizer, pack_files, packing
from lmcore.openba.documents import read_documents
from lmcore.openba.indexed import make_group_index
from lmcore.worlds.openba import make_world, write_piece_file
from timing import Row, compare, print_conditions, save

LENGTH = 568
_PACK = """
import resource, sys
from lmcore.openba import OpenBATokenizer, pack_files
pack_files([sys.argv[2]], OpenBATokenizer(sys.argv[1]), sys.argv[3], resume=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make_files(folder: Path, documents: int) -> tuple[Path, Path]:
    """Writes a piece file and a text."""
    pieces, text = folder / "spiece.model", folder / "text.txt"
    write_piece_file(pieces)
    text.write_text(make_world(0, documents=documents).to_text(), encoding="utf-8")
    return pieces, text


def compare_packing(folder: Path, documents: int, rounds: int) -> list[Row]:
    """All of a run against its tokenizer."""
    pieces, text = make_files(folder, documents)
    tokenizer = OpenBATokenizer(pieces)
    backend: Any = tokenizer.backend_tokenizer
    texts = [document.parse() for document in read_documents([text])]
    batches = [texts[start : start + 2000] for start in range(0, len(texts), 2000)]

    def tokenize() -> int:
        return sum(
            len(found.ids)
            for batch in batches
            for found in backend.encode_batch_fast(batch, add_special_tokens=False)
        )

    prefix = folder / "text"
    summary = pack_files([text], tokenizer, prefix, resume=False)
    if summary.tokens + len(summary.remainder) != tokenize() + len(texts):
        raise AssertionError("packing and the tokenizer count other tokens")
    name = f"{documents} documents, {text.stat().st_size / 1e6:.1f} MB, {summary.tokens} tokens"
    return compare(
        "openba_packing", name, ("tokenizers alone", tokenize),
        ("pack_files", lambda: pack_files([text], tokenizer, prefix, resume=False), "0.9"),
        rounds=rounds, repeats=1,
    )  # fmt: skip


def measure_share(folder: Path) -> None:
    """Prints how much of a run's time the tokenizer is at work, whatever else the machine does."""
    tokenizer = OpenBATokenizer(folder / "spiece.model")
    busy = 0.0

    class Timed:
        def __init__(self, backend: Any) -> None:
            self.backend = backend

        def encode_batch_fast(self, *arguments: Any, **options: Any) -> Any:
            nonlocal busy
            start = time.perf_counter()
            found = self.backend.encode_batch_fast(*arguments, **options)
            busy += time.perf_counter() - start
            return found

    original = packing.PackEncoder.__init__

    def make(encoder: Any, given: Any) -> None:
        original(encoder, given)
        encoder._backend = Timed(encoder._backend)

    with patch.object(packing.PackEncoder, "__init__", make):
        start = time.perf_counter()
        pack_files([folder / "text.txt"], tokenizer, folder / "text", resume=False)
        whole = time.perf_counter() - start
    print(f"the tokenizer is at work for {busy / whole:.1%} of a run; asked: 90%")


def compare_reading(folder: Path, groups: int, rounds: int) -> list[Row]:
    """Random batches of groups, and groups one by one, against a plain memory map."""
    prefix = folder / "groups"
    ids = np.random.default_rng(0).integers(0, 250_000, (groups, LENGTH), np.int32)
    prefix.with_suffix(".bin").write_bytes(ids.tobytes())

    prefix.with_suffix(".idx").write_bytes(b"".join(make_group_index(groups, LENGTH, "int32")))
    data = IndexedDataset(prefix)
    plain = np.memmap(prefix.with_suffix(".bin"), "<i4", "r").reshape(-1, LENGTH)
    orders = np.random.default_rng(1).permutation(groups).reshape(-1, 32)
    if not all((data.read_sources(order) == ids[order]).all() for order in orders):
        raise AssertionError("other tokens are read")
    checked = IndexedDataset(prefix, vocabulary_size=250_000)

    def read_plain() -> None:
        for order in orders:
            np.asarray(plain[order])

    def read(found: IndexedDataset) -> None:
        for order in orders:
            found.read_sources(order)

    return compare(
        "openba_packing", f"{groups} groups of {LENGTH} in random batches of 32",
        ("np.memmap", read_plain),
        ("IndexedDataset", lambda: read(data), "0.8"),
        ("IndexedDataset, ids checked", lambda: read(checked), ""),
        rounds=rounds,
    )  # fmt: skip


def measure_memory(folder: Path, documents: int) -> None:
    """Prints what a process took for a text, and for one of ten times its length."""
    pieces, text = make_files(folder, documents)
    long = folder / "long.txt"
    long.write_bytes(text.read_bytes() * 10)
    peaks = []
    for file in (text, long):
        done = subprocess.run(
            [sys.executable, "-c", _PACK, str(pieces), str(file), str(folder / "out")],
            capture_output=True,
            check=True,
            text=True,
        )
        peaks.append(int(done.stdout) / 1024)
    sizes = [file.stat().st_size / 1e6 for file in (text, long)]
    print(
        f"peak memory of a process: {peaks[0]:.0f} MiB for {sizes[0]:.1f} MB of text, "
        f"{peaks[1]:.0f} MiB for {sizes[1]:.1f} MB"
    )


def main() -> None:
    """Runs all cases."""
    print_conditions()
    quick = "--quick" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = compare_packing(folder, 4000 if quick else 40_000, 1 if quick else 7)
        measure_share(folder)
        rows += compare_reading(folder, 3200 if quick else 32_000, 1 if quick else 7)
        measure_memory(folder, 2000 if quick else 20_000)
    if not quick:
        save("openba_packing", rows)


if __name__ == "__main__":
    main()
