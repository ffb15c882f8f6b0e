"""Memory that is refused is an error, and what is shared is kept once."""

import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmcore.ops.lcs import longest_common_subsequence

PRELUDE = """
import json, os, resource, sys
from pathlib import Path
import numpy  # what reads its first array imports it
from lmcore import _core
from lmcore.ops import cleaning, duplicates, entities, lcs, matching, ngrams, predictions, words

def used():
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")

def limited(call, most, steps=8, least=8 << 20):
    '''Calls with ever more memory; counts refusals, until it succeeds.

    The least is what Python and small texts need: what lacks that is lost anyway.
    '''
    refused = 0
    for step in range(steps):
        room = least + (most - least) * step // (steps - 1)
        resource.setrlimit(resource.RLIMIT_AS, (used() + room, -1))
        try:
            call()
        except MemoryError:
            refused += 1
        else:
            break
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    else:
        raise SystemExit("refused to the end")
    print(refused)
"""
ROW = """
size = 100_000
w = [f"word{k % 5000}" for k in range(size)]
big = " ".join(w) * 10
other = [*w[: size // 2], *w[: size // 2 : -1], "more"]
row = {
    "label_list": ["x"], "words": w, "labels": ["B-x", "I-x", "O", "O"] * (size // 4),
    "prediction": " ".join(f"{word}(B-x)" for word in other),
}
"""


def run_limited(code: str) -> list[int]:
    """Runs code in a process of its own, and returns the numbers that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + ROW + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint64"])
def test_views_of_any_size(dtype: str) -> None:
    """They take no memory themselves: 2**40 elements once ended the interpreter."""
    for size in (2**32 - 1, 2**32, 2**40, 2**45):
        view = np.broadcast_to(np.ones(1, dtype), (size,))
        for a, b in ((view, [1]), ([1], view)):
            with pytest.raises(MemoryError, match=f"^not enough memory for {size} values$"):
                longest_common_subsequence(a, b)


def test_core_refuses_views_of_any_size() -> None:
    code = """
    import numpy as np
    view = np.broadcast_to(np.ones(1, np.int64), (2**40,))
    one = np.ones(1, np.int64)
    for a, b in ((view, one), (one, view)):
        try:
            _core.longest_common_subsequence_integers(a, b)
        except MemoryError as error:
            assert str(error) == f"not enough memory for {2**40} values"
            print(1)
    """
    assert run_limited(code) == [1, 1]


@pytest.mark.parametrize(
    "call",
    [
        "lcs.longest_common_subsequence(w, other)",
        "matching.align_words(w, other)",
        "predictions.score_examples([row])",
        "predictions.score_examples([row], worst=1, threads=2)",
        "ngrams.sentence_bleu([big], [[big]])",
        "ngrams.self_bleu([big, big])",
        "ngrams.choose_candidates([[big, big]], threads=2)",
        "ngrams.count_ngrams([big])",
        "cleaning.clean_texts([big, big], threads=2)",
        "cleaning.clean_texts(['<b>' + big], threads=1)",
        "duplicates.Duplicates().remove([big, big + '. ' + big], threads=2)",
    ],
)
def test_refused_memory_of_one_row(call: str) -> None:
    (refused,) = run_limited(f"limited(lambda: {call}, 400 << 20)")
    assert refused > 0


@pytest.mark.parametrize(
    "call",
    [
        "predictions.score_files([file], threads=1)",
        "predictions.score_files([file], threads=2)",
        "predictions.score_files([file], worst=1)",
        "predictions.score_files([file], back_tokenize=lambda words: words)",
        "predictions.align_file(file, os.devnull)",
    ],
)
@pytest.mark.parametrize("style", ["plain", "escaped"])
def test_refused_memory_of_a_long_line(tmp_path: Path, call: str, style: str) -> None:
    code = f"""
    file = {str(tmp_path / "a.jsonl")!r}
    if {style == "escaped"}:
        row["prediction"] = row["prediction"].replace(" ", "\\n")
        row["label_list"] = ["x", "\\t"]
    Path(file).write_text(json.dumps(row, separators=(",", ":") if {style == "plain"} else None))
    limited(lambda: {call}, 400 << 20)
    """
    (refused,) = run_limited(code)
    assert refused > 0


def test_a_line_larger_than_memory(tmp_path: Path) -> None:
    """A file with a hole: 3 GB without a line feed, under a limit of 500 MB."""
    file = tmp_path / "hole.jsonl"
    with file.open("wb") as hole:
        hole.truncate(3 << 30)
    code = f"""
    resource.setrlimit(resource.RLIMIT_AS, (used() + (500 << 20), -1))
    for call in (
        lambda: predictions.score_files([{str(file)!r}]),
        lambda: predictions.align_file({str(file)!r}, os.devnull),
    ):
        try:
            call()
        except MemoryError:
            print(1)
    """
    assert run_limited(code) == [1, 1]


def test_command_on_a_line_larger_than_memory(tmp_path: Path) -> None:
    file = tmp_path / "hole.jsonl"
    with file.open("wb") as hole:
        hole.truncate(3 << 30)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    done = subprocess.run(
        [sys.executable, "-m", "lmcore", "ner", "score", str(file)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "memory" in line


@pytest.mark.parametrize("same", [True, False])
def test_label_lists_are_kept_once(same: bool) -> None:
    """One list of 2,000 types for 10,000 sentences took 610 MiB."""
    made: Any = (
        "[types] * rows"
        if same
        else "[list(types) if k % 2 else tuple(types) for k in range(rows)]"
    )
    code = f"""
    types, rows = [f"type {{k}}" for k in range(2000)], 10_000
    lists = {made}
    resource.setrlimit(resource.RLIMIT_AS, (used() + (120 << 20), -1))
    matches = matching.match_labels_batch([["a"]] * rows, ["a(B-type 7)"] * rows, lists, threads=1)
    assert all(match.labels == ["B-type 7"] for match in matches)
    print(len(matches))
    """
    assert run_limited(code) == [10_000]


@pytest.mark.parametrize(
    "name", ["score_files", "count_entities_batch", "match_labels_batch", "write_examples_batch"]
)
def test_sequences_that_say_they_are_endless(name: str) -> None:
    """A length is no promise, and rows without strings are rows too."""
    code = f"""
        resource.setrlimit(resource.RLIMIT_AS, (used() + (1 << 24), -1))
        def view(item):
            return numpy.broadcast_to(item, (2**45,))
        empty, number = view(numpy.array(b"")), view(numpy.array(1))
        calls = {{
            "score_files": lambda: _core.score_files(number, "strict", 1, 0, False, None, None),
            "count_entities_batch":
                lambda: _core.count_entities_batch(None, [["O"]], empty, "strict", 1),
            "match_labels_batch": lambda: _core.match_labels_batch(empty, [""], [[]], None, 1),
            "write_examples_batch":
                lambda: _core.write_examples_batch([], [], empty, [], None, None, [], None, 1),
        }}
        try:
            calls[{name!r}]()
        except TypeError:
            print(1)
        except MemoryError:
            print(2)
        """
    assert run_limited(code) == [1 if name == "score_files" else 2]
