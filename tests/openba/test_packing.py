"""Packing: groups are the tokens of the documents in order, whatever form, batch or kill."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from commands import file_size_limited
from lmcore.openba import IndexedDataset, OpenBATokenizer, documents, packing
from lmcore.openba.documents import find_form
from lmcore.openba.packing import pack_files
from lmcore.worlds.openba import make_world, write_piece_file
from stopped_runs import Stop, stop_after

TEXTS = [
    *make_world(1, documents=60).texts, "   ", "three  spaces ", "中文 and English",
    "</s> <S> plain", "é" * 300, "",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> OpenBATokenizer:
    path = tmp_path_factory.mktemp("pieces") / "spiece.model"
    write_piece_file(path)
    return OpenBATokenizer(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return tmp_path


def expected_ids(tokenizer: Any, texts: list[str]) -> list[int]:
    ids = []
    for text in texts:
        found = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ids += [*found, 1] if found else []
    return ids


def outputs(folder: Path, name: str = "o") -> list[bytes]:
    return [(folder / f"{name}.{ending}").read_bytes() for ending in ("bin", "idx", "json")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("length", [1, 2, 7, 100, 568])
def test_groups_are_the_tokens_in_order(
    folder: Path, tokenizer: OpenBATokenizer, length: int
) -> None:
    summary = pack_files(["a.txt"], tokenizer, "o", length=length)
    ids = expected_ids(tokenizer, TEXTS)
    groups, left = divmod(len(ids), length)
    data = IndexedDataset("o", vocabulary_size=len(tokenizer))
    assert data.read_sources(range(groups)).ravel().tolist() == ids[: groups * length]
    assert (data.sizes[:, 1] == 0).all()
    assert data.span_corruption.tolist() == list(range(groups))
    assert summary.remainder == ids[groups * length :]
    assert (summary.groups, len(summary.remainder)) == (len(data), left)
    assert (summary.documents, summary.tokens, summary.dtype) == (64, groups * length, "uint16")
    numbers = json.loads((folder / "o.json").read_text())
    assert numbers["remainder"] == summary.remainder
    assert numbers["vocabulary_size"] == len(tokenizer)
    assert names(folder) == ["a.txt", "o.bin", "o.idx", "o.json"]


def write_forms(folder: Path) -> list[list[str]]:
    """The same documents in every form, and over several files."""
    half = len(TEXTS) // 2
    lines = [json.dumps({"id": 1, "text": text}, ensure_ascii=False) for text in TEXTS]
    (folder / "b.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    (folder / "c.txt.gz").write_bytes(gzip.compress("\r\n".join(TEXTS).encode()))
    parquet.write_table(
        pyarrow.table({"text": TEXTS, "n": range(len(TEXTS))}), folder / "d.parquet"
    )
    (folder / "e.txt").write_text("\ufeff" + "\n".join(TEXTS[:half]), encoding="utf-8")
    parquet.write_table(
        pyarrow.table({"text": pyarrow.array([*TEXTS[half:], None], pyarrow.large_string())}),
        folder / "f.parquet",
        row_group_size=3,
    )
    return [["b.jsonl"], ["c.txt.gz"], ["d.parquet"], ["e.txt", "f.parquet"]]


def test_all_forms_give_the_same(folder: Path, tokenizer: OpenBATokenizer) -> None:
    pack_files(["a.txt"], tokenizer, "o", length=50)
    for files in write_forms(folder):
        done: list[int] = []
        pack_files(files, tokenizer, "p", length=50, progress=done.append)
        assert outputs(folder, "p") == outputs(folder), files
        assert done == sorted(done)
        assert 0 < done[-1] <= sum(Path(name).stat().st_size for name in files)
    (folder / "a").write_bytes((folder / "b.jsonl").read_bytes())
    pack_files(["a"], tokenizer, "p", length=50, form="jsonl")
    assert outputs(folder, "p") == outputs(folder)
    assert find_form("X.JSONL.GZ") == "jsonl"


def test_large_vocabularies_take_four_bytes(folder: Path, tmp_path: Path) -> None:
    write_piece_file(folder / "s.model", size=66_000)
    summary = pack_files(["a.txt"], OpenBATokenizer(folder / "s.model"), "o", length=10)
    assert summary.dtype == "int32"
    assert (folder / "o.idx").read_bytes()[17] == 4
    assert (folder / "o.bin").stat().st_size == 4 * summary.tokens


def test_text_that_spells_special_tokens_is_plain(folder: Path, tokenizer: OpenBATokenizer) -> None:
    (folder / "b.txt").write_text("</s> <S> <extra_id_0> <pad>\n" * 9)
    pack_files(["b.txt"], tokenizer, "o", length=5)
    tokens = IndexedDataset("o").read_sources(range(9)).ravel().tolist()
    assert tokens.count(1) <= 1
    assert not set(tokens) & {0, *tokenizer.sentinel_ids, *tokenizer.prefix_ids.values()}
    # The tokenizer itself is as it was.
    assert tokenizer("<S>", add_special_tokens=False)["input_ids"] == [tokenizer.prefix_ids["<S>"]]


# Ends and goes on.


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_BYTES_AT_ONCE", 40)
    monkeypatch.setattr(packing, "_SAVE_SECONDS", 0.0)


@pytest.mark.usefixtures("small_batches")
def test_a_run_that_ends_anywhere_goes_on_to_the_same_bytes(
    folder: Path, tokenizer: OpenBATokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_files(["a.txt"], tokenizer, "o", length=50)
    expected = outputs(folder)
    for path in folder.glob("o.*"):
        path.unlink()
    resumed = []
    for last in (0, 1, 2, 20, 21, 45, len(TEXTS) - 3):
        with monkeypatch.context() as patch:
            patch.setattr(packing, "read_documents", stop_after(last))
            with pytest.raises(Stop):
                pack_files(["a.txt"], tokenizer, "o", length=50)
        assert not (folder / "o.bin").exists()
        resumed.append(len(list(folder.glob(".*"))))
    assert resumed == [0, 0, 2, 2, 2, 2, 2]  # one batch is under way, and is made again
    summary = pack_files(["a.txt"], tokenizer, "o", length=50)
    assert 55 < summary.resumed_documents < summary.documents
    assert outputs(folder) == expected
    assert names(folder) == ["a.txt", "o.bin", "o.idx", "o.json"]


@pytest.fixture
def begun(
    folder: Path, tokenizer: OpenBATokenizer, monkeypatch: pytest.MonkeyPatch, small_batches: None
) -> Path:
    """A folder in which a run ended after some documents."""
    with monkeypatch.context() as patch:
        patch.setattr(packing, "read_documents", stop_after(40))
        with pytest.raises(Stop):
            pack_files(["a.txt"], tokenizer, "o", length=50)
    assert [name[-12:] for name in names(folder)[:2]] == [".lmcore-rows", "lmcore-state"]
    return folder


def test_other_settings_are_not_gone_on_with(begun: Path, tokenizer: OpenBATokenizer) -> None:
    (begun / "b.txt").write_bytes((begun / "a.txt").read_bytes())
    for files, length, reason in ((["b.txt"], 50, "files"), (["a.txt"], 51, "length")):
        with pytest.raises(FileExistsError, match=rf"^o\.bin: \d+ rows .* with another {reason}; "):
            pack_files(files, tokenizer, "o", length=length)
    other = OpenBATokenizer(tokenizer._vocab_file, extra_ids=5)
    with pytest.raises(FileExistsError, match="with another tokenizer; "):
        pack_files(["a.txt"], other, "o", length=50)
    assert pack_files(["b.txt"], tokenizer, "o", length=50, resume=False).resumed_documents == 0


@pytest.mark.parametrize("what", ["changed", "shorter"])
def test_another_beginning_is_not_gone_on_with(
    begun: Path, tokenizer: OpenBATokenizer, what: str
) -> None:
    lines = (begun / "a.txt").read_text(encoding="utf-8").split("\n")
    lines = ["other", *lines[1:]] if what == "changed" else lines[:5]
    (begun / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(
        FileExistsError, match=r"^o\.bin: \d+ documents of it are there, made from "
    ):
        pack_files(["a.txt"], tokenizer, "o", length=50)


def test_what_was_written_is_not_trusted(begun: Path, tokenizer: OpenBATokenizer) -> None:
    (rows,) = begun.glob(".*-rows")
    content = bytearray(rows.read_bytes())
    content[5] ^= 1
    rows.write_bytes(content)
    with pytest.raises(ValueError, match=r"^o\.bin: .* cannot be gone on with: "):
        pack_files(["a.txt"], tokenizer, "o", length=50)
    rows.write_bytes(content[:20])
    with pytest.raises(ValueError, match=r"^o\.bin: .* bytes are missing"):
        pack_files(["a.txt"], tokenizer, "o", length=50)


@pytest.mark.parametrize("step", ["json", "idx", "bin"])
def test_a_kill_between_the_outputs_leaves_nothing_that_looks_whole(
    folder: Path, tokenizer: OpenBATokenizer, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    pack_files(["a.txt"], tokenizer, "o", length=60)
    with monkeypatch.context() as patch:
        if step == "json":
            patch.setattr(json, "dumps", _stop)
            # The state is written before.
            patch.setattr(packing.Partial, "save", lambda *_: None)
        elif step == "idx":
            patch.setattr(packing, "make_group_index", _stop)
        else:
            patch.setattr(packing.Partial, "finish", _stop)
        with pytest.raises(Stop):
            pack_files(["a.txt"], tokenizer, "o", length=50)
    assert not (folder / "o.bin").exists()
    with pytest.raises((FileNotFoundError, ValueError)):
        IndexedDataset("o")
    pack_files(["a.txt"], tokenizer, "o", length=50)
    assert len(IndexedDataset("o")[0].source) == 50
    assert names(folder) == ["a.txt", "o.bin", "o.idx", "o.json"]


def _stop(*_: Any, **__: Any) -> Any:
    raise Stop


# Bad input.


def test_documents_that_cannot_be_used(folder: Path, tokenizer: OpenBATokenizer) -> None:
    (folder / "b.txt").write_bytes(b"good one\n\xff\xfe\nanother good one\n")
    rows = ['{"text": "good"}', '{"text": 5}', "[]", '{"other": 1}', '{"text": "\\ud800"}', "{"]
    (folder / "c.jsonl").write_text("\n".join(rows))
    for file, reason in (
        ("b.txt", "b.txt:2: not UTF-8 at byte 1"),
        ("c.jsonl", "c.jsonl:2: expected a text under 'text', got 5"),
    ):
        with pytest.raises(ValueError, match=f"^{reason}$"):
            pack_files([file], tokenizer, "o", length=2, resume=False)
    # What was refused is passed over by the same command.
    summary = pack_files(["c.jsonl"], tokenizer, "o", length=2, skip_bad_rows=True)
    assert [row.partition(": ")[0] for row in summary.listed_bad_rows] == [
        f"c.jsonl:{line}" for line in (2, 3, 4, 5, 6)
    ]
    assert (summary.documents, summary.bad_rows) == (1, 5)
    assert pack_files(["b.txt"], tokenizer, "p", length=2, skip_bad_rows=True).documents == 2


def test_parquet_files_that_cannot_be_used(folder: Path, tokenizer: OpenBATokenizer) -> None:
    (folder / "a.parquet").write_bytes(b"PAR1 and no more")
    parquet.write_table(pyarrow.table({"a": [1], "b": [2]}), folder / "b.parquet")
    parquet.write_table(pyarrow.table({"text": [1, 2]}), folder / "c.parquet")
    for name, reason in (
        ("a", "not a usable parquet file: "),
        ("b", "expected texts in the column 'text', got 'a, b'"),
        ("c", "expected texts in the column 'text', got 'int64'"),
    ):
        with pytest.raises(ValueError, match=rf"^{name}\.parquet: .*{reason}"):
            pack_files([f"{name}.parquet"], tokenizer, "o")
    with pytest.raises(FileNotFoundError):
        pack_files(["none.parquet"], tokenizer, "o")


def test_too_little_text(folder: Path, tokenizer: OpenBATokenizer) -> None:
    (folder / "b.txt").write_text("\n  \n")
    with pytest.raises(ValueError, match=r"^b\.txt: expected 568 tokens for a group, got 0 in 0 "):
        pack_files(["b.txt"], tokenizer, "o")
    with pytest.raises(
        ValueError, match=r"^a\.txt: expected 100000 tokens for a group, got \d+ in"
    ):
        pack_files(["a.txt"], tokenizer, "o", length=100_000)
    assert names(folder) == ["a.txt", "b.txt"]


def test_outputs_that_cannot_be(folder: Path, tokenizer: OpenBATokenizer) -> None:
    (folder / "i.bin").write_text("text\n" * 100)
    (folder / "j.json").write_text('{"text": "a"}\n' * 100)
    for file, prefix in (("i.bin", "i"), ("j.json", "j")):
        with pytest.raises(ValueError, match=r"the output is an input too$"):
            pack_files([file], tokenizer, prefix, length=5)
    (folder / "full.bin").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"^full\.bin: expected a file, got a device or a pipe$"):
        pack_files(["a.txt"], tokenizer, "full", length=5)
    with pytest.raises(FileNotFoundError):
        pack_files(["a.txt"], tokenizer, "none/o", length=5)
    for prefix in ("", "folder/"):
        with pytest.raises(ValueError, match=r"^the outputs need a name, got "):
            pack_files(["a.txt"], tokenizer, prefix, length=5)
    (folder / "o.idx").mkdir()
    with pytest.raises(IsADirectoryError):
        pack_files(["a.txt"], tokenizer, "o", length=5)


def test_a_full_disk(folder: Path, tokenizer: OpenBATokenizer) -> None:
    with file_size_limited(500), pytest.raises(OSError, match="File too large") as caught:
        pack_files(["a.txt"], tokenizer, "o", length=5)
    assert caught.value.filename == "o.bin"
    assert pack_files(["a.txt"], tokenizer, "o", length=5).groups > 50


def test_bad_arguments(folder: Path, tokenizer: OpenBATokenizer) -> None:
    for length in (0, -1, 2**31):
        with pytest.raises(ValueError, match=r"^length must be from 1 to 2147483647: got "):
            pack_files(["a.txt"], tokenizer, "o", length=length)
    with pytest.raises(ValueError, match=r"^give at least one file: got none$"):
        pack_files([], tokenizer, "o")
    with pytest.raises(ValueError, match=r"^format must be one of auto, text, .*: got 'csv'$"):
        pack_files(["a.txt"], tokenizer, "o", form="csv")
    with pytest.raises(TypeError, match=r"^tokenizer must have a backend and an end of texts: got"):
        pack_files(["a.txt"], object(), "o")
    assert names(folder) == ["a.txt"]
    assert documents.FORMS == packing.FORMS


def test_an_error_of_the_tokenizer_comes_out(
    folder: Path, tokenizer: OpenBATokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, todo: Any, done: Any) -> None:
        while (batch := todo.get()) is not None:
            done.put((batch, MemoryError("no room")))

    monkeypatch.setattr(packing.PackEncoder, "_work", fail)
    with pytest.raises(MemoryError, match="no room"):
        pack_files(["a.txt"], tokenizer, "o")
    assert names(folder) == ["a.txt"]
