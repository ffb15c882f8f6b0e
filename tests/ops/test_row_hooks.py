"""What calls back and ends early: progress, tokenizers, Ctrl-C; memory that does not grow."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops.entities import SCHEMES
from lmcore.ops.predictions import (
    Evaluation,
    align_file,
    score_examples,
    score_files,
)
from lmcore.reference import predictions as reference
from lmcore.reference.matching import match_labels
from prediction_rows import (
    VALID,
    interrupt_reader,
    make_rows,
    rows,
    write_rows,
)
from scored_rows import (
    BOM,
    VALID_LINE,
    in_order,
)


@pytest.mark.parametrize("threads", [1, 2])
def test_progress(many_rows: Path, tmp_path: Path, threads: int) -> None:
    size = many_rows.stat().st_size
    runs: list[Callable[..., Any]] = [
        lambda hook: score_files([many_rows], threads=threads, progress=hook),
        lambda hook: align_file(many_rows, tmp_path / "b", threads=threads, progress=hook),
    ]
    for run in runs:
        seen: list[int] = []
        run(seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == size
        assert len(set(seen)) > 2
        assert 0 <= seen[0] < size


def test_progress_of_several_files(tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    files[0].write_bytes(BOM + VALID_LINE + b"\r\n\n\n")
    files[1].write_bytes(VALID_LINE)
    seen: list[int] = []
    score_files(files, progress=seen.append)
    sizes = [file.stat().st_size for file in files]
    assert list(dict.fromkeys(seen)) == [sizes[0], sum(sizes)]


def test_progress_of_equal_files(tmp_path: Path) -> None:
    """Two files of one size count twice: a bar over both ends at its end."""
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file in files:
        file.write_bytes(VALID_LINE)
    seen: list[int] = []
    score_files(files, progress=seen.append)
    assert list(dict.fromkeys(seen)) == [len(VALID_LINE), 2 * len(VALID_LINE)]


class _StopError(Exception):
    pass


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", [_StopError, KeyboardInterrupt, ValueError, SystemExit])
def test_what_a_hook_raises_comes_out(
    many_rows: Path, tmp_path: Path, threads: int, kind: type[BaseException]
) -> None:
    raised = kind("exactly this")
    calls = 0

    def hook(_: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 or isinstance(_, list):
            raise raised
        return _

    made = [VALID] * 20_000
    runs: list[Callable[[], Any]] = [
        lambda: score_files([many_rows], threads=threads, progress=hook),
        lambda: score_files([many_rows], threads=threads, back_tokenize=hook),
        lambda: score_examples(made, threads=threads, back_tokenize=hook),
        lambda: align_file(many_rows, tmp_path / "b", threads=threads, progress=hook),
        lambda: align_file(many_rows, tmp_path / "b", threads=threads, back_tokenize=hook),
    ]
    for run in runs:
        calls = 0
        with pytest.raises(kind) as caught:
            run()
        assert caught.value is raised
        assert list(tmp_path.iterdir()) == []


def back_tokenize_word(word: str) -> str:
    """A tokenizer that does not know some characters, and writes others differently."""
    return word.replace("é", "").replace("ß", "ss").replace("北", "<unk>").replace("b", "a")


class Recorder:
    """A tokenizer that remembers what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, words: list[str]) -> list[str]:
        self.batches.append(words)
        return back_tokenize(words)

    def check(self, made: list[dict[str, Any]]) -> None:
        asked = [word for batch in self.batches for word in batch]
        assert sorted(asked) == sorted({w.lower() for row in made for w in row["words"]})
        assert all(self.batches)


def back_tokenize(words: list[str]) -> list[str]:
    return [back_tokenize_word(word) for word in words]


def check_back_tokenized(made: list[dict[str, Any]], folder: Path, scheme: str) -> None:
    options: dict[str, Any] = {"worst": 2, "back_tokenize": back_tokenize}
    file, target = write_rows(folder / "back.jsonl", made), folder / "back.out.jsonl"
    from_list = in_order(reference.score_examples(made, scheme, **options))
    from_file = in_order(reference.score_files([file], scheme, **options))
    matches = [
        match_labels(
            row["words"],
            row["prediction"],
            row.get("types", row.get("label_list")),
            back_tokenize([word.lower() for word in row["words"]]),
        )
        for row in made
    ]
    for threads in (1, 2):
        runs: list[tuple[Any, Callable[..., Evaluation]]] = [
            (from_file, partial(score_files, [file], scheme, threads=threads)),
            (from_list, partial(score_examples, made, scheme, threads=threads)),
        ]
        for expected, run in runs:
            recorder = Recorder()
            assert in_order(run(worst=2, back_tokenize=recorder)) == expected
            recorder.check(made)
        recorder = Recorder()
        align_file(file, target, scheme, threads=threads, back_tokenize=recorder)
        recorder.check(made)
        aligned = [json.loads(line) for line in target.read_bytes().splitlines()]
        assert [row["labels"] for row in aligned] == [match.labels for match in matches]
        assert [row["matching"] for row in aligned] == [match.matching for match in matches]


@given(st.lists(rows(), min_size=1, max_size=4), st.sampled_from(SCHEMES))
def test_back_tokenisation(folder: Path, made: list[dict[str, Any]], scheme: str) -> None:
    check_back_tokenized(made, folder, scheme)


def test_back_tokenisation_over_blocks(folder: Path) -> None:
    made = make_rows(9000, seed=5)
    check_back_tokenized(made, folder, "gner")
    recorder = Recorder()
    score_examples(made, back_tokenize=recorder)
    assert len(recorder.batches) <= 2, "one batch per table of 8192 rows"


def test_back_tokenisation_changes_input_words_alone(tmp_path: Path) -> None:
    row = {"label_list": ["x"], "words": ["Bé"], "labels": ["B-x"]}
    hook = Recorder()
    known = score_examples([{**row, "prediction": "A(B-x)"}], back_tokenize=hook)
    assert known.datasets["examples"].entities == (1, 1, 1)
    assert hook.batches == [["bé"]]
    # A generated word stays as it is, and the answer replaces the word.
    unknown = score_examples([{**row, "prediction": "Bé(B-x)"}], back_tokenize=hook)
    assert unknown.datasets["examples"].entities == (1, 0, 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_tokenizer_that_answers_wrongly(tmp_path: Path, threads: int) -> None:
    file = write_rows(tmp_path / "a.jsonl", [VALID])
    cases: list[tuple[Callable[[list[str]], Any], type[Exception]]] = [
        (lambda words: words[1:], ValueError),
        (lambda words: [*words, "x"], ValueError),
        (lambda words: [1 for _ in words], TypeError),
        (lambda words: None, TypeError),
        (lambda words: "abc", TypeError),
        (lambda words: ["\ud800" for _ in words], ValueError),
    ]
    for hook, kind in cases:
        for run in (
            lambda: score_examples([VALID], threads=threads, back_tokenize=hook),  # noqa: B023
            lambda: score_files([file], threads=threads, back_tokenize=hook),  # noqa: B023
            lambda: align_file(file, tmp_path / "b", threads=threads, back_tokenize=hook),  # noqa: B023
        ):
            with pytest.raises(kind):
                run()
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


_INTERRUPTED = """
import signal, sys, time
from lmcore.ops.predictions import score_files, align_file

signal.signal(signal.SIGINT, signal.default_int_handler)
call, path, target = sys.argv[1:]
print("ready", flush=True)
try:
    score_files([path]) if call == "score" else align_file(path, target)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("command", ["score", "align"])
def test_ctrl_c(tmp_path: Path, command: str) -> None:
    pipe = tmp_path / "endless.jsonl"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, command, str(pipe), str(tmp_path / "b.jsonl")],
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = interrupt_reader(process, pipe)
    assert output == "ready\ninterrupted\n"
    assert process.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [pipe.name]


_MEASURED = """
import resource, sys
from pathlib import Path
from lmcore.ops.predictions import align_file, score_files

command, path, threads, *target = sys.argv[1:]
if command == "score":
    rows = sum(d.rows for d in score_files([path], threads=int(threads)).datasets.values())
else:
    rows, *_ = align_file(path, *target, threads=int(threads))
status = Path("/proc/self/status")
if status.exists():  # what getrusage says of a child can be its parent's
    (peak,) = (line.split()[1] for line in status.open() if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak //= 1024 if sys.platform == "darwin" else 1
print(rows, int(peak) // 1024)
"""


@pytest.mark.parametrize("command", ["score", "align"])
def test_memory_does_not_grow_with_the_file(folder: Path, many_rows: Path, command: str) -> None:
    content = many_rows.read_bytes()
    times = 200_000_000 // len(content) + 1
    if command == "align":
        times //= 4
    file = folder / "large.jsonl"
    try:
        with file.open("wb") as large:
            for _ in range(times):
                large.write(content)
        target = [] if command == "score" else [os.devnull]
        output = subprocess.run(
            [sys.executable, "-c", _MEASURED, command, str(file), "2", *target],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout
    finally:
        file.unlink()
    rows_done, peak_mebibytes = map(int, output.split())
    assert rows_done == 6000 * times
    assert peak_mebibytes < 200
