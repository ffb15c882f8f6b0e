"""Rows of tasks to instructions, and instructions to token files, against one row at a time.

The opponent of the first holds all rows in memory, checks nothing, fills templates by `str.format`
and shuffles; templates are one for each task, so that both write the same rows in another order.
That of the second calls the tokenizer twice a row and adds each item by itself.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lmcore.openba import (
    IndexedWriter,
    InstructionConfig,
    OpenBATokenizer,
    pack_pairs,
    write_instructions,
)
from lmcore.worlds.openba import make_world, write_piece_file
from timing import Row, compare, print_conditions, save

_WRITE = """
import resource, sys
from lmcore.openba import InstructionConfig, write_instructions
write_instructions(sys.argv[3:], sys.argv[1], sys.argv[2], InstructionConfig(cap=None))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make_files(folder: Path, rows: int) -> list[Path]:
    """Writes rows of two tasks, English and Chinese, and a template for each."""
    texts = make_world(0, documents=4000).texts
    files = []
    for name in ("en", "zh"):
        files.append(folder / f"{name}.jsonl")
        with open(files[-1], "w", encoding="utf-8") as file:
            for number in range(rows // 2):
                text = texts[number % len(texts)]
                row = {"id": number, "text": text, "answer": text[:40]}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    templates = {
        "en": [{"source": "Begin: {text}", "target": "{answer}", "language": "en"}],
        "zh": [{"source": "开头：{text}", "target": "{answer}", "language": "zh"}],
    }
    (folder / "t.json").write_text(json.dumps(templates), encoding="utf-8")
    return files


def write_naively(files: list[Path], templates: Path, target: Path) -> None:
    """The same rows, in another order."""
    known = json.loads(templates.read_text(encoding="utf-8"))
    rows = []
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            template = random.choice(known[path.stem])
            rows.append(
                {
                    "source": template["source"].format(**row),
                    "target": template["target"].format(**row),
                    "task": path.stem, "language": template["language"], "template": 1,
                    "id": row["id"],
                }
            )  # fmt: skip
    random.shuffle(rows)
    with open(target, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def compare_writing(folder: Path, rows: int, rounds: int) -> list[Row]:
    """Both ways to write a collection."""
    files, templates = make_files(folder, rows), folder / "t.json"
    config = InstructionConfig(cap=None, ratio="none")
    ours, theirs = folder / "ours.jsonl", folder / "theirs.jsonl"
    write_instructions(files, templates, ours, config)
    write_naively(files, templates, theirs)
    if sorted(ours.read_bytes().splitlines()) != sorted(theirs.read_bytes().splitlines()):
        raise AssertionError("other rows are written")
    size = sum(file.stat().st_size for file in files) / 1e6
    return compare(
        "openba_instructions", f"{rows} rows, {size:.1f} MB",
        ("row by row in memory", lambda: write_naively(files, templates, theirs)),
        ("write_instructions", lambda: write_instructions(files, templates, ours, config), ""),
        rounds=rounds, repeats=1,
    )  # fmt: skip


def pack_naively(source: Path, tokenizer: Any, prefix: Path) -> None:
    """The same files, one row at a time."""
    options = {"add_special_tokens": False, "split_special_tokens": True}
    with (
        open(source, encoding="utf-8") as file,
        IndexedWriter(prefix, vocabulary_size=len(tokenizer)) as writer,
    ):
        for line in file:
            row = json.loads(line)
            found = [tokenizer(row[key], **options)["input_ids"] for key in ("source", "target")]
            writer.add(found[0], [*found[1], tokenizer.eos_token_id])


def compare_packing(folder: Path, rows: int, rounds: int) -> list[Row]:
    """Both ways to pack a part of it."""
    write_piece_file(folder / "s.model")
    tokenizer = OpenBATokenizer(folder / "s.model")
    source = folder / "part.jsonl"
    lines = (folder / "ours.jsonl").read_bytes().splitlines(keepends=True)[:rows]
    source.write_bytes(b"".join(lines))
    ours, theirs = folder / "ours", folder / "theirs"
    summary = pack_pairs([source], tokenizer, ours, resume=False)
    pack_naively(source, tokenizer, theirs)
    for ending in (".bin", ".idx"):
        if Path(f"{ours}{ending}").read_bytes() != Path(f"{theirs}{ending}").read_bytes():
            raise AssertionError(f"other {ending} files are written")
    tokens = summary.source_tokens + summary.target_tokens
    name = f"{rows} pairs, {source.stat().st_size / 1e6:.1f} MB, {tokens} tokens"
    return compare(
        "openba_instructions", name,
        ("tokenizer row by row", lambda: pack_naively(source, tokenizer, theirs)),
        ("pack_pairs", lambda: pack_pairs([source], tokenizer, ours, resume=False), ""),
        rounds=rounds, repeats=1,
    )  # fmt: skip


def measure_memory(folder: Path, rows: int) -> None:
    """Prints what a process took for so many rows, and for ten times as many."""
    peaks = []
    for count in (rows, 10 * rows):
        files = make_files(folder, count)
        arguments = [folder / "t.json", folder / "out.jsonl", *files]
        done = subprocess.run(
            [sys.executable, "-c", _WRITE, *map(str, arguments)],
            capture_output=True, check=True, text=True,
        )  # fmt: skip
        peaks.append(int(done.stdout) / 1024)
    each = (peaks[1] - peaks[0]) * 2**20 / (9 * rows)
    print(
        f"peak memory of a process: {peaks[0]:.0f} MiB for {rows} rows, {peaks[1]:.0f} MiB for "
        f"{10 * rows}: {each:.0f} bytes for each row more"
    )


def main() -> None:
    """Runs all cases."""
    print_conditions()
    quick = "--quick" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = compare_writing(folder, 4000 if quick else 40_000, 1 if quick else 5)
        rows += compare_packing(folder, 1000 if quick else 4000, 1 if quick else 5)
        measure_memory(folder, 4000 if quick else 100_000)
    if not quick:
        save("openba_instructions", rows)


if __name__ == "__main__":
    main()
