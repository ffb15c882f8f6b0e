"""Rows, paths, numbers and answers that somebody made to do harm, or by mistake."""

import gc
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lmcore import _core
from lmcore.ops.entities import compute_quality
from lmcore.ops.matching import match_labels
from lmcore.ops.predictions import align_file, score_examples, score_files

ROW = {"words": ["x"], "labels": ["B-a"], "label_list": ["a"], "prediction": "x(B-a)"}


class _OwnError(Exception):
    """Stands for whatever a caller's own code may raise."""


class Lazy(Sequence[str]):
    """Words that are made when they are asked for, and one of them fails."""

    def __init__(self, error: BaseException, after: int = 1) -> None:
        self.error, self.after = error, after

    def __len__(self) -> int:
        return self.after + 1

    def __getitem__(self, index: Any) -> Any:
        if index >= self.after:
            raise self.error
        return "x"

    def __iter__(self) -> Iterator[str]:
        return (self[k] for k in range(len(self)))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("key", ["words", "labels", "label_list"])
@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt("stop"),
        MemoryError("no memory"),
        OSError(5, "the disk"),
        ValueError("of the caller"),
        TypeError("of the caller"),
        _OwnError("of the caller"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_callers_code_raises_comes_out(
    error: BaseException, key: str, skip: bool, threads: int
) -> None:
    rows = [ROW, {**ROW, key: Lazy(error)}, ROW]
    with pytest.raises(type(error)) as raised:
        score_examples(rows, skip_bad_rows=skip, threads=threads)
    assert raised.value is error


def test_refusals_of_our_own_are_bad_rows_still() -> None:
    bad = [{**ROW, "words": words} for words in (["\ud800"], [1], 1, "x", None)]
    sums = score_examples([ROW, *bad], skip_bad_rows=True)
    assert (sums.bad_rows, sums.datasets["examples"].rows) == (len(bad), 1)


def test_what_the_callers_code_raises_comes_out_of_matching() -> None:
    error = OSError(5, "the disk")
    with pytest.raises(OSError, match="the disk") as raised:
        match_labels(Lazy(error), "x(B-a)", ["a"])
    assert raised.value is error


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_error_does_not_depend_on_the_threads(threads: int) -> None:
    """A bad first row comes before a tokenizer that fails on the second table."""
    calls = 0

    def tokenize(words: list[str]) -> list[str]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("the tokenizer failed")
        return words

    rows: list[Any] = [{**ROW, "words": [f"w{k}"]} for k in range(20_000)]
    rows[0] = {**ROW, "words": 7}
    with pytest.raises(TypeError, match=r"examples\[0\]"):
        score_examples(rows, threads=threads, back_tokenize=tokenize)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"words": ["y"], %s', "words: this key stands twice in its object"),
        ('{"prediction": "", %s', "prediction: this key stands twice in its object"),
        ('{"dataset": "a", "dataset": "b", %s', "dataset: this key stands twice"),
        ('{"instance": {"words": ["x"]}, %s', "words: this key stands at the top of the row and"),
        ('{"instance": {"labels": ["O"]}, %s', "labels: this key stands at the top of the row and"),
        (
            '{"instance": {"words": ["x"], "words": ["y"]}, %s',
            "instance.words: this key stands twice in its object",
        ),
    ],
)
@pytest.mark.parametrize("escaped", [False, True])
def test_a_row_that_says_two_things_is_bad(
    tmp_path: Path, line: str, problem: str, escaped: bool
) -> None:
    """Read plainly, and by the general reader, which a row with escapes goes to."""
    rest = json.dumps({**ROW, "label_list": ["a", "\t"] if escaped else ["a"]})[1:]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + line % rest + "\n")
    with pytest.raises(ValueError, match=problem):
        score_files([file])
    assert score_files([file], skip_bad_rows=True).bad_rows == 1


def test_keys_that_nobody_reads_may_stand_twice(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"note": 1, "note": 2, ' + json.dumps(ROW)[1:] + "\n")
    assert score_files([file]).datasets["rows"].rows == 1


@pytest.mark.alone
def test_many_data_sets_take_linear_time() -> None:
    """40,000 of them took 4 s, since each was looked for in a list."""

    def seconds(count: int) -> float:
        rows = [{**ROW, "dataset": f"set {k}"} for k in range(count)]
        start = time.perf_counter()
        assert len(score_examples(rows, threads=1).datasets) == count
        return time.perf_counter() - start

    gc.disable()  # its passes over what was made before are another cost
    try:
        few, many = (min(seconds(count) for _ in range(3)) for count in (2_500, 40_000))
    finally:
        gc.enable()
    # Sixteen times as many: a list would take 256 times as long.
    assert many < 80 * few


def test_paths_of_any_bytes(tmp_path: Path) -> None:
    file = os.path.join(os.fsencode(tmp_path), b"rows \xff\xfe.jsonl")  # noqa: PTH118
    name = os.fsdecode(file)
    Path(name).write_text(json.dumps(ROW) + "\n")
    out = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"out \xff.jsonl"))  # noqa: PTH118
    assert score_files([name]).datasets
    assert align_file(name, out).rows == 1
    assert Path(out).read_text()
    with pytest.raises(FileNotFoundError) as raised:
        score_files([name + "x"])
    assert raised.value.filename == name + "x"
    Path(name).write_text("{}\n")
    with pytest.raises(ValueError, match=r"rows \\xff\\xfe.jsonl:1: types: this key is miss"):
        score_files([name])


@pytest.mark.parametrize("answer", [[], ["a"], ["a", "b", "c"]], ids=len)
def test_a_tokenizers_answer_of_another_length_is_called_that(answer: list[str]) -> None:
    row = {**ROW, "words": ["x", "y"], "labels": ["O", "O"]}
    message = (
        "back_tokenize must return one string for each word that it is given: "
        f"got {len(answer)} for 2"
    )
    with pytest.raises(ValueError, match=message):
        score_examples([row], back_tokenize=lambda words: answer)


@pytest.mark.parametrize("number", [-1, -(2**63), -(2**64), -(2**70)])
def test_numbers_below_their_range(number: int, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    for call in (
        lambda: score_examples([ROW], worst=number),
        lambda: score_files([file], worst=number),
    ):
        with pytest.raises(ValueError, match=rf"^worst must be at least 0: got {number}$"):
            call()
    with pytest.raises(ValueError, match=rf"at least 0.*got {number}$"):
        compute_quality((number, 0, 0), "strict")
    for function in (_core.score_examples, _core.score_files):
        with pytest.raises(ValueError, match=f"got {number}$"):
            function(
                *([[ROW]] if function is _core.score_examples else [[], None]),
                "strict",
                number,
                0,
                False,
                *([None] if function is _core.score_examples else [None, None]),
            )


def test_rows_of_odd_mappings_are_refused_by_type() -> None:
    class Odd(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise _OwnError(key)

        def __iter__(self) -> Iterator[str]:
            return iter(())

        def __len__(self) -> int:
            return 0

    with pytest.raises(TypeError, match="expected a dict"):
        score_examples([Odd()])
