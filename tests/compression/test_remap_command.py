"""The command `lmcore compression remap`: its lines."""

from pathlib import Path

import numpy as np
import pytest

from commands import check_line, run_here
from lmcore.compression.record import Record, write_record
from lmcore.openba import IndexedDataset
from lmcore.worlds.openba import write_piece_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_piece_file(tmp_path / "spiece.model")
    (tmp_path / "a.txt").write_text("Ada met Otto.\n" * 40)
    pack = ["openba", "pack", "a.txt", "--tokenizer", "spiece.model", "--length", 10]
    assert run_here(*pack, "--out", "in", "--quiet")[0] == 0
    ids = np.unique(IndexedDataset("in").tokens)
    write_record(tmp_path, Record(source="ab", vocabulary_ids=[0, 2, *ids[:-1].tolist()]))
    return tmp_path


def remap(*arguments: object) -> tuple[int, str, str]:
    return run_here("compression", "remap", *arguments, "--record", ".", "--quiet")


def test_summary(folder: Path) -> None:
    lost = int(IndexedDataset("in").tokens.max())
    result = remap("in", "out")
    check_line(result, f"in.bin: 40 of 200 ids have no new one (id {lost}: 40): give --tokenizer")
    assert not Path("out.bin").exists()
    assert remap("in", "out", "--fill", 1) == (
        0, f"gone: id {lost}, 40 times\n",
        "200 ids became 200 (uint16): 40 were gone, and 0 are of unknown text now\n",
    )  # fmt: skip
    assert (IndexedDataset("out").tokens == 1).sum() == 40
    assert remap("in", "out", "--drop")[2] == (
        "200 ids became 160 (uint16): 40 were gone, and 0 are of unknown text now\n"
    )
    assert IndexedDataset("out").sizes.tolist() == [[10, 0]] * 16


def test_of_many_ids_that_are_gone_the_rest_is_summed_up(folder: Path) -> None:
    np.save("in.npy", np.repeat(np.arange(300, 325), np.arange(25, 0, -1)).astype(np.uint16))
    listed = remap("in.npy", "out.npy", "--drop")[1].splitlines()
    assert listed[0] == "gone: id 300, 25 times"
    assert listed[19:] == ["gone: id 319, 6 times", "gone: 5 others, 15 times in all"]


def test_one_line_for_what_cannot_be_used(folder: Path) -> None:
    check_line(remap("none", "out", "--drop"), "none.idx: No such file or directory")
    check_line(remap("in", "in", "--drop"), "in.idx: the output is an input too")
    check_line(remap("in", "out", "--drop", "--fill", 1), "fill and drop exclude each other")
    check_line(remap("in", "out", "--dtype", "x"), "dtype must be one of auto, uint16, int32")
    check_line(remap("in", "out", "--tokenizer", "spiece.model"), "belong together")
    result = remap("in", "out", "--tokenizer", "spiece.model", "--new-tokenizer", "spiece.model")
    check_line(result, ".: not the record of these tokenizers: the old id ")
    content = (folder / "in.bin").read_bytes()
    (folder / "in.bin").write_bytes(content[:-2])
    check_line(remap("in", "out", "--drop"), "in.bin: expected ")
    (folder / "in.bin").write_bytes(content)
    (folder / "pruning.json").write_text("{")
    check_line(remap("in", "out", "--drop"), "pruning.json: not a record of pruning: ")
    assert not list(folder.glob("out*"))
