"""A file that is given twice counts its rows once or is refused: here it is refused."""

import os
from pathlib import Path

import pytest

from commands import check_line, run_here
from lmcore.ner import score_files
from prediction_rows import VALID, write_rows


@pytest.mark.parametrize("kind", ["itself", "relative", "symbolic link", "hard link"])
def test_the_same_file_twice(tmp_path: Path, kind: str) -> None:
    file, other = write_rows(tmp_path / "a.jsonl", [VALID]), tmp_path / "b.jsonl"
    if kind == "itself":
        other = file
    elif kind == "relative":
        other = tmp_path / ".." / tmp_path.name / "a.jsonl"
    elif kind == "symbolic link":
        other.symlink_to(file)
    else:
        other.hardlink_to(file)
    with pytest.raises(ValueError, match="the file is given twice, first as ") as caught:
        score_files([file, other])
    assert str(caught.value).startswith(f"{other}: ")
    check_line(run_here("ner", "score", file, other), f"{other}: the file is given twice")


def test_equal_files_and_pipes_count_twice(tmp_path: Path) -> None:
    files = [write_rows(tmp_path / name, [VALID]) for name in ("a.jsonl", "b.jsonl")]
    assert sum(d.rows for d in score_files(files).datasets.values()) == 2
    with pytest.raises(ValueError, match="holds no rows"):
        score_files([os.devnull, os.devnull])
