"""Remapping: the new ids are those of the new tokenizer, and nothing is lost in silence."""

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pytest
from numpy.typing import NDArray
from pyarrow import parquet
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from commands import file_size_limited
from lmcore.compression import remap_file, remapping, retokenization
from lmcore.compression.backends import Backend, load_backend
from lmcore.compression.record import Record, read_record, write_record
from lmcore.compression.retokenization import Retokenizer
from lmcore.openba import IndexedDataset, IndexedWriter
from lmcore.worlds.openba import make_world, write_piece_file

TEXTS = [*make_world(1, documents=40).texts, "a  b", "Ada", "中文 and English", "x Ada y"]


def flatten(rows: list[list[int]]) -> list[int]:
    return [token for row in rows for token in row]


class Pair(NamedTuple):
    """A tokenizer, a smaller one, and what it kept."""

    old: Backend
    new: Backend
    old_ids: NDArray[np.int64]
    folder: Path

    @property
    def paths(self) -> dict[str, Any]:
        return {"tokenizer": self.folder / "old.json", "new_tokenizer": self.folder / "new.json"}

    def encode(self, texts: list[str]) -> tuple[list[list[int]], list[list[int]]]:
        old, new = (
            [backend.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
            for backend in (self.old, self.new)
        )
        return old, new


def make_pair(path: Path, folder: Path, share: float = 0.6) -> Pair:
    """Drops pieces of a unigram tokenizer at random, but for letters, bytes and special ones."""
    old = load_backend(path)
    content = json.loads(old.tokenizer.to_str())
    (folder / "old.json").write_text(json.dumps(content))
    model, generator = content["model"], np.random.default_rng(0)
    kept = [
        i
        for i, (text, _) in enumerate(model["vocab"])
        if i in old.hidden or len(text) == 1 or generator.random() < share
    ]
    model["vocab"] = [model["vocab"][i] for i in kept]
    model["unk_id"] = kept.index(model["unk_id"])
    (folder / "new.json").write_text(json.dumps(content))
    write_record(folder, Record(source="ab", vocabulary_ids=[*kept, -1, -1]))
    return Pair(old, load_backend(folder / "new.json"), np.array(kept), folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    write_piece_file(folder / "spiece.model")
    return make_pair(folder / "spiece.model", folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_items(rows: list[list[int]], prefix: str = "in", size: int = 70_000) -> None:
    with IndexedWriter(prefix, vocabulary_size=size) as writer:
        for k, row in enumerate(rows):
            # Some have targets, and an item may be empty.
            cut = len(row) // 2 if k % 3 == 2 else len(row)
            writer.add(row[:cut], row[cut:])


def read_items(prefix: str = "out") -> list[list[int]]:
    data = IndexedDataset(prefix)
    return [
        [*item.source.tolist(), *item.target.tolist()]
        for item in map(data.__getitem__, range(len(data)))
    ]


# What is cut anew.


def test_words_are_those_of_the_new_tokenizer(pair: Pair) -> None:
    old, new = pair.encode(TEXTS)
    table = np.full(pair.old.vocabulary_size, -1)
    table[pair.old_ids] = np.arange(len(pair.old_ids))
    assert {-1} < set(table[flatten(old)].tolist())
    retokenizer = Retokenizer(table, pair.old, pair.new, None, "int32")
    starts = np.cumsum([0, *map(len, old)])
    got, places = retokenizer.translate(np.array(flatten(old)), starts)
    rows = [got[a:b].tolist() for a, b in itertools.pairwise(places)]
    assert rows == new
    assert retokenizer.unknown == 0


def test_real_pieces(data_dir: Path, tmp_path: Path) -> None:
    pair = make_pair(data_dir / "tok/sp_botchan_en_unigram_1000.model", tmp_path)
    lines = (data_dir / "corpora/en/tinyshakespeare.txt").read_text().split("\n")[:800]
    old, new = pair.encode(lines)
    table = np.full(pair.old.vocabulary_size, -1)
    table[pair.old_ids] = np.arange(len(pair.old_ids))
    retokenizer = Retokenizer(table, pair.old, pair.new, None, "int32")
    starts = np.cumsum([0, *map(len, old[:-1])])
    got, places = retokenizer.translate(np.array(flatten(old)), starts)
    assert got.tolist() == flatten(new)
    assert places.tolist() == np.cumsum([0, *map(len, new[:-1])]).tolist()


def test_words_of_wordpiece(tmp_path: Path) -> None:
    words = ["[UNK]", "play", "##ing", "##s", "p", "##l", "##a", "##y", "##i", "##n", "##g", "!"]
    backends = []
    for k, names in enumerate((words, [w for w in words if w not in ("play", "##s")])):
        model = models.WordPiece({w: i for i, w in enumerate(names)}, unk_token="[UNK]")
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(tmp_path / f"{k}.json"))
        backends.append(load_backend(tmp_path / f"{k}.json"))
    old, new = backends
    table = np.array([-1 if w in ("play", "##s") else new.tokenizer.token_to_id(w) for w in words])
    text = "playing ! plays pagi x"
    ids = [backend.tokenizer.encode(text).ids for backend in backends]
    retokenizer = Retokenizer(table, old, new, None, "int32")
    assert retokenizer.translate(np.array(ids[0]), np.array([0]))[0].tolist() == ids[1]
    # `##s` has no letters of its own any more: the whole word is unknown.
    assert retokenizer.unknown == 1


def test_runs_of_marks_belong_to_the_word_behind_them(tmp_path: Path) -> None:
    pieces = [("<unk>", -9.0), ("▁", -1.0), ("▁▁", -1.5), ("▁b", -1.0), ("a", -2.0), ("b", -2.0)]
    backends = []
    for k, kept in enumerate((pieces, [piece for piece in pieces if piece[0] != "▁b"])):
        tokenizer = Tokenizer(models.Unigram(kept, 0, False))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        split = pre_tokenizers.Split(Regex("▁+"), "merged_with_next")
        tokenizer.pre_tokenizer = split
        tokenizer.save(str(tmp_path / f"{k}.json"))
        backends.append(load_backend(tmp_path / f"{k}.json"))
    old, new = backends
    assert old.tokenizer.encode("a  b").tokens == ["a", "▁", "▁b"]
    assert new.tokenizer.encode("a  b").tokens == ["a", "▁▁", "b"]
    ids = [backend.tokenizer.encode("a  b b").ids for backend in backends]
    table = np.array([0, 1, 2, -1, 3, 4])
    found = Retokenizer(table, old, new, None, "int32").translate(np.array(ids[0]), np.array([0]))
    assert found[0].tolist() == ids[1]


def test_pieces_of_bytes_are_cut_alone(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("ab", "c")]
    backends = []
    for k, kept in enumerate((2, 1)):
        names = [*alphabet, *("".join(pair) for pair in merges[:kept])]
        model = models.BPE({name: i for i, name in enumerate(names)}, merges[:kept])
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.save(str(tmp_path / f"{k}.json"))
        backends.append(load_backend(tmp_path / f"{k}.json"))
    old, new = backends
    table = np.array([*range(257), -1])
    ids = [backend.tokenizer.encode("abc ab, é abcabc").ids for backend in backends]
    found = Retokenizer(table, old, new, None, "uint16").translate(np.array(ids[0]), np.array([0]))
    assert found[0].tolist() == ids[1]


@pytest.mark.parametrize("at_once", [1, 2, 7, 50, 1 << 20])
def test_parts_of_any_size_give_the_same(
    folder: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    old, new = pair.encode(TEXTS)
    write_items([*old, []])
    np.save("in.npy", np.array(flatten(old), np.uint16))
    monkeypatch.setattr(remapping, "_COUNTED_AT_ONCE", at_once)
    if at_once > 2:  # a part ends where a word begins: shorter ones cut through words
        monkeypatch.setattr(remapping, "_AT_ONCE", max(at_once, 30))
    done: list[int] = []
    summary = remap_file("in", "out", pair.folder, **pair.paths, progress=done.append)
    assert read_items() == [*new, []]
    assert (summary.tokens, summary.new_tokens) == (len(flatten(old)), len(flatten(new)))
    assert summary.lost == sum(count for _, count in summary.lost_ids) > 0
    assert done[-1] == Path("in.bin").stat().st_size
    before, after = IndexedDataset("in"), IndexedDataset("out")
    assert after.multi_task.tolist() == before.multi_task.tolist()
    assert after.span_corruption.tolist() == before.span_corruption.tolist()
    assert after.dtype == np.uint16


def test_groups_keep_their_length(folder: Path, pair: Pair) -> None:
    old, new = (flatten(rows) for rows in pair.encode(TEXTS))
    length = 50
    with IndexedWriter("in", vocabulary_size=70_000) as writer:
        for start in range(0, len(old) // length * length, length):
            writer.add(old[start : start + length])
    summary = remap_file("in.bin", "out.bin", pair.folder, **pair.paths)
    data = IndexedDataset("out")
    table = data.table
    assert table is not None
    assert table.shape[1] == length
    assert table.ravel().tolist() == new[: table.size]
    assert (summary.new_tokens, summary.remainder) == (table.size, summary.remainder)
    assert 0 <= summary.remainder < length
    # A group that is filled has the length that it had.
    summary = remap_file("in", "filled", pair.folder, fill=0)
    assert IndexedDataset("filled").sizes.tolist() == IndexedDataset("in").sizes.tolist()
    assert summary.remainder == 0


# What is filled, dropped, refused.

IDS = [[5, 7, 9], [9, 9], [7], [2, 5, 7, 3]]


@pytest.fixture
def small(folder: Path) -> Path:
    """A record that keeps 0, 7 and 5."""
    write_record(folder, Record(source="ab", vocabulary_ids=[0, 7, 5, -1]))
    write_items(IDS)
    np.save("in.npy", np.array(flatten(IDS), np.int32))
    return folder


def test_without_a_rule_nothing_is_written(small: Path) -> None:
    text = (
        r" 5 of 10 ids have no new one \(id 9: 3, id 2: 1, id 3: 1\): give --tokenizer and "
        r"--new-tokenizer, --fill ID or --drop$"
    )
    for source, name in (("in", "in.bin"), ("in.npy", "in.npy")):
        with pytest.raises(ValueError, match=rf"^{name}:{text}"):
            remap_file(source, "out.npy" if name == "in.npy" else "out", small)
    assert sorted(path.name for path in small.iterdir()) == [
        "in.bin", "in.idx", "in.npy", "pruning.json",
    ]  # fmt: skip


def test_fill_and_drop(small: Path) -> None:
    summary = remap_file("in", "out", "pruning.json", fill=3)
    assert read_items() == [[2, 1, 3], [3, 3], [1], [3, 2, 1, 3]]
    assert (summary.lost, summary.lost_ids) == (5, [(9, 3), (2, 1), (3, 1)])
    remap_file("in", "out", small, drop=True)
    assert read_items() == [[2, 1], [], [1], [2, 1]]
    for dtype, expected in (("auto", np.uint16), ("int32", np.int32), ("int64", np.int64)):
        remap_file("in.npy", "out.npy", small, drop=True, dtype=dtype)
        found = np.load("out.npy")
        assert (found.tolist(), found.dtype) == ([2, 1, 1, 2, 1], expected)
        remap_file("in", "out", small, drop=True, dtype=dtype)
        assert IndexedDataset("out").dtype == expected


def test_arrays_keep_their_shape(small: Path) -> None:
    np.save("two.npy", np.array([[5, 7], [7, 0], [9, 5]], np.int64))
    remap_file("two.npy", "out.npy", small, fill=0)
    assert np.load("out.npy").tolist() == [[2, 1], [1, 0], [0, 2]]
    with pytest.raises(ValueError, match=r"^two\.npy: rows of its 2 axes would differ in length"):
        remap_file("two.npy", "out.npy", small, drop=True)
    np.save("empty.npy", np.zeros((0, 3), np.uint16))
    remap_file("empty.npy", "out.npy", small)
    assert np.load("out.npy").shape == (0, 3)


def test_ids_without_text_need_a_rule(folder: Path, pair: Pair) -> None:
    size = pair.old.vocabulary_size
    np.save("in.npy", np.array([1, size + 5, 2**40, -1]))
    text = r"3 of 4 ids have no new one and no text \(ids .* lacks: 3\): give --fill"
    with pytest.raises(ValueError, match=text):
        remap_file("in.npy", "out.npy", pair.folder, **pair.paths)
    assert remap_file("in.npy", "out.npy", pair.folder, **pair.paths, drop=True).lost == 3
    assert np.load("out.npy").tolist() == [1]
    remap_file("in.npy", "out.npy", pair.folder, **pair.paths, fill=2)
    assert np.load("out.npy").tolist() == [1, 2, 2, 2]


# Parquet.


def test_tables(folder: Path, pair: Pair) -> None:
    old, new = pair.encode(TEXTS)
    rows = [*old, None, []]
    ids = pyarrow.array(rows, pyarrow.list_(pyarrow.int32()))
    names = [str(k) for k in range(len(rows))]
    parquet.write_table(
        pyarrow.table({"n": names, "input_ids": ids}), "in.parquet", row_group_size=9
    )
    done: list[int] = []
    summary = remap_file(
        "in.parquet", "out.parquet", pair.folder, **pair.paths, progress=done.append
    )
    table = parquet.read_table("out.parquet")
    assert table["input_ids"].to_pylist() == [*new, None, []]
    assert table["n"].to_pylist() == names
    assert table.schema.field("input_ids").type.value_type == pyarrow.int32()
    assert (summary.new_tokens, summary.dtype) == (len(flatten(new)), "int32")
    assert done[-1] == Path("in.parquet").stat().st_size
    table = pyarrow.table({"input_ids": ids, "mask": ids})
    parquet.write_table(table, "two.parquet")
    with pytest.raises(ValueError, match=r"^two\.parquet: its lists mask would no longer be as "):
        remap_file("two.parquet", "out.parquet", pair.folder, **pair.paths)
    remap_file("two.parquet", "out.parquet", pair.folder, fill=3, dtype="uint16")
    found = parquet.read_table("out.parquet")
    assert found["mask"].to_pylist() == rows
    assert [len(row or []) for row in found["input_ids"].to_pylist()] == [
        len(r or []) for r in rows
    ]


def test_tables_that_cannot_be_used(small: Path) -> None:
    Path("a.parquet").write_bytes(b"PAR1 and no more")
    parquet.write_table(pyarrow.table({"input_ids": [1, 2]}), "b.parquet")
    parquet.write_table(pyarrow.table({"other": [[1]]}), "c.parquet")
    parquet.write_table(pyarrow.table({"input_ids": [[0, None]]}), "d.parquet")
    for name, reason in (
        ("a", "not a usable parquet file: "), ("b", "expected lists of ids in the column 'input_"),
        ("c", "expected lists of ids in the column 'input_ids', got other"),
        ("d", "a list of ids holds nothing in place of an id"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^{name}\.parquet: {reason}"):
            remap_file(f"{name}.parquet", "out.parquet", small, fill=0)
    assert not Path("out.parquet").exists()


# Bad input.


def test_records_that_cannot_be_used(small: Path) -> None:
    for content, reason in (
        ({"vocabulary": {"old_ids": [5, 5]}}, "the old id 5 stands there twice"),
        ({"vocabulary": {"old_ids": [2**30]}}, "1073741824 is no id of a vocabulary"),
        ({"vocabulary": {"old_ids": [0, "x"]}}, "old_ids must be whole numbers"),
        ({"vocabulary": {"old_ids": [0, True]}}, "old_ids must be whole numbers"),
        ({"vocabulary": {"old_ids": [-1]}}, "the vocabulary was not pruned"),
        ({"vocabulary": 5}, "vocabulary must hold old_ids"),
        ({}, "the vocabulary was not pruned"),
    ):  # fmt: skip
        head = {"format": "lmcore-pruning", "version": 1, "source": "ab"}
        (small / "pruning.json").write_text(json.dumps({**head, **content}))
        with pytest.raises(ValueError, match=reason):
            remap_file("in", "out", small, fill=0)
    for text in (
        "",
        "[]",
        '{"format": "x"}',
        '{"format": "lmcore-pruning", "version": 9}',
        "[" * 9**6,
    ):
        Path("pruning.json").write_text(text)
        with pytest.raises(ValueError, match=r"pruning\.json: "):
            read_record(small)
    with pytest.raises(FileNotFoundError):
        remap_file("in", "out", "nowhere", fill=0)


def test_tokenizers_of_another_record(folder: Path, pair: Pair) -> None:
    np.save("in.npy", np.array([1]))
    old_ids = pair.old_ids.copy()
    old_ids[[-1, -2]] = old_ids[[-2, -1]]
    write_record(folder, Record(source="ab", vocabulary_ids=old_ids.tolist()))
    with pytest.raises(ValueError, match="not the record of these tokenizers: the old id "):
        remap_file("in.npy", "out.npy", folder, **pair.paths)


def test_outputs_and_arguments(small: Path) -> None:
    before = [Path(name).read_bytes() for name in ("in.bin", "in.idx")]
    for target in ("in", "in.bin", "./in.idx"):
        with pytest.raises(ValueError, match=r"the output is an input too$"):
            remap_file("in", target, small, fill=0)
    with pytest.raises(ValueError, match=r"^in\.npy: the output is an input too$"):
        remap_file("in.npy", "in.npy", small, fill=0)
    assert [Path(name).read_bytes() for name in ("in.bin", "in.idx")] == before
    with pytest.raises(ValueError, match=r"^out: expected the name of a \.npy file"):
        remap_file("in.npy", "out", small, fill=0)
    with pytest.raises(ValueError, match=r"^dtype must be one of auto, uint16, int32, int64: got"):
        remap_file("in", "out", small, dtype="int8")
    with pytest.raises(ValueError, match=r"^fill must be at least 0 and below 4: got 4$"):
        remap_file("in", "out", small, fill=4)
    with pytest.raises(ValueError, match="exclude each other"):
        remap_file("in", "out", small, fill=0, drop=True)
    with pytest.raises(ValueError, match="belong together"):
        remap_file("in", "out", small, tokenizer="t")
    with pytest.raises(FileNotFoundError):
        remap_file("none", "out", small, fill=0)
    assert not Path("out.bin").exists()
    for name in ("null.npy", "null.bin"):
        Path(name).symlink_to("/dev/null")
    for source, target in (("in.npy", "null.npy"), ("in", "null")):
        with pytest.raises(ValueError, match=r": expected a file, got a device or a pipe$"):
            remap_file(source, target, small, fill=0)
    large = [*range(70_000)]
    write_record(small, Record(source="ab", vocabulary_ids=large))
    with pytest.raises(ValueError, match=r"^dtype uint16 does not hold 70000 ids$"):
        remap_file("in", "out", small, dtype="uint16")


def test_a_full_disk_leaves_what_was_there(small: Path) -> None:
    remap_file("in", "out", small, fill=0)
    np.save("in.npy", np.zeros(5000, np.int32))
    remap_file("in.npy", "out.npy", small, fill=0)
    before = {path.name: path.read_bytes() for path in small.iterdir()}
    write_items([[0] * 3000], "big")
    big = {f"big.{end}": Path(f"big.{end}").read_bytes() for end in ("bin", "idx")}
    for source, target in (("big", "out"), ("in.npy", "out.npy")):
        with file_size_limited(500), pytest.raises(OSError, match="File too large") as caught:
            remap_file(source, target, small, fill=0)
        assert str(caught.value.filename).startswith("out.")
    assert {path.name: path.read_bytes() for path in small.iterdir()} == {**before, **big}


def test_an_old_index_never_stands_beside_new_tokens(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remap_file("in", "out", small, fill=0)

    class Stop(BaseException):
        """Ends a run in the midst of it."""

    def stop(*_: Any) -> Any:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(remapping, "make_index", stop)
        with pytest.raises(Stop):
            remap_file("in", "out", small, drop=True)
    with pytest.raises(FileNotFoundError):
        IndexedDataset("out")
    remap_file("in", "out", small, drop=True)
    assert read_items() == [[2, 1], [], [1], [2, 1]]


def test_long_words_are_cut(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retokenization, "_LONGEST_WORD", 5)
    table = np.full(pair.old.vocabulary_size, -1)
    retokenizer = Retokenizer(table, pair.old, pair.new, None, "int32")
    (ids,), _ = pair.encode(["x" * 40])
    assert 0 < retokenizer.find_cut(np.array(ids)) < len(ids)
    assert retokenizer.find_cut(np.array(ids[:1])) == 1
