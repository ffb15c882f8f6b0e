"""Counting: what all forms, batches and kills count is what a tokenizer's ids are."""

import gzip
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from tokenizers import Tokenizer, models, pre_tokenizers

from commands import file_size_limited
from lmcore.compression import Counts, count_files, counting, read_counts
from lmcore.compression.backends import hash_tokenizer, load_backend
from lmcore.compression.languages import LANGUAGES, find_languages
from lmcore.openba import IndexedWriter
from lmcore.worlds.openba import make_world, write_piece_file
from stopped_runs import Stop, stop_after

TEXTS = [
    *make_world(1, documents=60).texts,
    "   ",
    "three  spaces ",
    "中文 and",
    "</s> <S>",
    "é" * 9,
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").mkdir()
    write_piece_file(tmp_path / "t/spiece.model")
    (tmp_path / "a.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return tmp_path


def expected(texts: list[str], folder: Path) -> list[int]:
    backend = load_backend(folder / "t")
    found = Counter(
        token
        for text in texts
        for token in backend.tokenizer.encode(text, add_special_tokens=False).ids
    )
    return [found[token] for token in range(backend.vocabulary_size)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_counts_are_those_of_the_tokenizer(folder: Path) -> None:
    done: list[int] = []
    summary = count_files(["a.txt"], "t", "o", progress=done.append)
    assert summary.counts.total.tolist() == expected(TEXTS, folder)
    assert (summary.documents, summary.bad_rows, summary.resumed_tokens) == (64, 0, 0)
    assert summary.tokens == summary.counts.tokens
    assert done[-1] == (folder / "a.txt").stat().st_size
    counts = read_counts("o")
    assert list(counts.groups) == ["all"]
    assert counts.total.tolist() == summary.counts.total.tolist()
    assert counts.tokenizer == hash_tokenizer("t") == hash_tokenizer("t/spiece.model")
    assert names(folder) == ["a.txt", "o", "t"]


def test_all_forms_give_the_same(folder: Path) -> None:
    count_files(["a.txt"], "t", "o")
    lines = [json.dumps({"content": text}, ensure_ascii=False) for text in TEXTS]
    (folder / "b.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    (folder / "c.txt.gz").write_bytes(gzip.compress("\r\n".join(TEXTS).encode()))
    parquet.write_table(pyarrow.table({"content": TEXTS}), folder / "d.parquet")
    for name in ("b.jsonl", "c.txt.gz", "d.parquet"):
        count_files([name], "t", "p", key="content")
        assert (folder / "p").read_bytes() == (folder / "o").read_bytes(), name


def write_ids(folder: Path) -> list[int]:
    """The same ids as a token file and as an array."""
    backend = load_backend("t")
    rows = [backend.tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    with IndexedWriter("ids", vocabulary_size=backend.vocabulary_size) as writer:
        for row in rows:
            writer.add(row)
    flat = [token for row in rows for token in row]
    np.save("ids.npy", np.asarray(flat, np.int32).reshape(-1, 1))
    return flat


def test_files_of_ids(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_files(["a.txt"], "t", "o")
    flat = write_ids(folder)
    monkeypatch.setattr(counting, "_IDS_AT_ONCE", 100)
    for name in ("ids", "ids.bin", "ids.idx", "ids.npy"):
        done: list[int] = []
        count_files([name], "t", "p", progress=done.append)
        assert (folder / "p").read_bytes() == (folder / "o").read_bytes(), name
        assert done[-1] == len(flat) * (4 if name == "ids.npy" else 2)
    summary = count_files(["ids", "a.txt", "ids.npy"], "t", "p")
    assert summary.tokens == 3 * len(flat)


def test_groups_of_files(folder: Path) -> None:
    write_ids(folder)
    for name, text in (("en.txt", "Ada met Otto."), ("zh.txt", "中文"), ("x.txt", "x y z")):
        (folder / name).write_text(text, encoding="utf-8")
    files = ["en.txt", "zh.txt", "x.txt", "ids.npy"]
    groups = [("en", "e*.txt"), ("zh", "zh.txt"), ("en", "ids*")]
    counts = count_files(files, "t", "o", groups=groups).counts
    assert list(counts.groups) == ["en", "zh", "other"]
    for name, texts in (("en", ["Ada met Otto.", *TEXTS]), ("zh", ["中文"]), ("other", ["x y z"])):
        assert counts.groups[name].tolist() == expected(texts, folder), name
    with pytest.raises(ValueError, match=r"^group fr: 'fr\*' fits none of the files$"):
        count_files(files, "t", "o", groups=[("fr", "fr*")])


def test_languages_of_documents(folder: Path) -> None:
    counts = count_files(["a.txt"], "t", "o", by="language").counts
    assert list(counts.groups) == ["en", "zh", "other"]
    found = find_languages(TEXTS)
    assert set(found.tolist()) == {0, 1, 2}
    for place, name in enumerate(LANGUAGES):
        texts = [text for text, own in zip(TEXTS, found, strict=True) if own == place]
        assert counts.groups[name].tolist() == expected(texts, folder), name


def test_scripts() -> None:
    cases = {
        "Ada met Otto.": "en", "他说好。": "zh", "Привет": "other", "12 + 3!": "other", "": "other",
        "the word 水 means": "en", "水水 ab": "zh", "ひらがなです": "other", "한국어 문장": "other",
        "𠀀𠀁 ok": "zh", "😀😀😀 ok": "en", "Ｆｕｌｌ": "other", "“‘——’”": "other",
        "\ud800 ok": "en",
    }  # fmt: skip
    found = find_languages(list(cases))
    assert dict(zip(cases, (LANGUAGES[k] for k in found), strict=True)) == cases
    # Each text stands for itself, whatever its neighbours are.
    assert [find_languages([text])[0] for text in cases] == found.tolist()
    assert find_languages([]).tolist() == []


def test_a_tokenizer_of_the_library(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "Ada": 1, "met": 7}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.save("t/tokenizer.json")
    (folder / "b.txt").write_text("Ada met met met x\n")
    counts = count_files(["b.txt"], "t", "o").counts
    assert counts.total.tolist() == [1, 1, 0, 0, 0, 0, 0, 3]


# Ends and goes on.


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_BYTES_AT_ONCE", 40)
    monkeypatch.setattr(counting, "_SAVE_SECONDS", 0.0)


def stop_run(monkeypatch: pytest.MonkeyPatch, last: int, **options: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(counting, "read_documents", stop_after(last))
        with pytest.raises(Stop):
            count_files(["a.txt"], "t", "o", **options)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("by", ["group", "language"])
def test_a_run_that_ends_anywhere_goes_on_to_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    count_files(["a.txt"], "t", "o", by=by)
    whole = (folder / "o").read_bytes()
    (folder / "o").unlink()
    left = []
    for last in (0, 1, 2, 20, 21, 45, len(TEXTS) - 3):
        stop_run(monkeypatch, last, by=by)
        assert not (folder / "o").exists()
        left.append(len(list(folder.glob(".*"))))
    assert left == [0, 0, 2, 2, 2, 2, 2]  # one batch is under way, and is made again
    summary = count_files(["a.txt"], "t", "o", by=by)
    assert 0 < summary.resumed_tokens < summary.tokens
    assert summary.documents == 64
    assert (folder / "o").read_bytes() == whole
    assert names(folder) == ["a.txt", "o", "t"]


@pytest.mark.usefixtures("small_batches")
def test_a_kill_between_counts_and_state_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_files(["a.txt"], "t", "o")
    whole = (folder / "o").read_bytes()
    (folder / "o").unlink()
    save, calls = counting.Partial.save, itertools.count()

    def die(self: Any, state: Any) -> None:
        if next(calls) == 4:
            raise Stop
        save(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(counting.Partial, "save", die)
        patch.setattr(counting._Run, "keep", lambda self: None)
        with pytest.raises(Stop):
            count_files(["a.txt"], "t", "o")
    assert count_files(["a.txt"], "t", "o").resumed_tokens > 0
    assert (folder / "o").read_bytes() == whole


@pytest.mark.usefixtures("small_batches")
def test_other_inputs_and_broken_states_are_not_gone_on_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_run(monkeypatch, 40)
    with pytest.raises(
        FileExistsError, match=r"^o: \d+ rows of it are there, made with another by"
    ):
        count_files(["a.txt"], "t", "o", by="language")
    text = (folder / "a.txt").read_bytes()
    (folder / "a.txt").write_bytes(b"x" + text)
    with pytest.raises(FileExistsError, match=r"^o: \d+ documents .* beginning of a\.txt; start"):
        count_files(["a.txt"], "t", "o")
    (folder / "a.txt").write_bytes(text[:100])
    with pytest.raises(FileExistsError, match=r"another beginning of the inputs; start anew"):
        count_files(["a.txt"], "t", "o")
    (folder / "a.txt").write_bytes(text)
    (rows,) = folder.glob(".*-rows")
    content = bytearray(rows.read_bytes())
    content[::97] = bytes(byte ^ 1 for byte in content[::97])
    rows.write_bytes(content)
    with pytest.raises(ValueError, match=r"^o: the counts of it .* cannot be gone on with"):
        count_files(["a.txt"], "t", "o")
    assert count_files(["a.txt"], "t", "o", resume=False).documents == 64


# Bad input.


def test_what_cannot_be_used(folder: Path) -> None:
    (folder / "b.jsonl").write_text('{"text": "Ada"}\n{"text": 5}\n')
    with pytest.raises(ValueError, match=r"^b\.jsonl:2: expected a text under 'text', got 5$"):
        count_files(["b.jsonl"], "t", "o", resume=False)
    summary = count_files(["b.jsonl"], "t", "o", resume=False, skip_bad_rows=True)
    assert (summary.bad_rows, len(summary.listed_bad_rows)) == (1, 1)
    (folder / "empty").write_text("\n \n")
    with pytest.raises(ValueError, match=r"^empty: there are no tokens in it$"):
        count_files(["empty"], "t", "p")
    np.save("ids.npy", np.array([1, 10**6, -1]))
    with pytest.raises(IndexError, match=r"^ids\.npy, from token 0 on: .* ids\[1\] must be"):
        count_files(["ids.npy"], "t", "p")
    with pytest.raises(ValueError, match=r"^ids\.npy: ids have no language"):
        count_files(["ids.npy"], "t", "p", by="language")
    for name, content in (("x.npy", b"\x93NUMPY"), ("y.npy", b"text"), ("z.npy", b"")):
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{name[0]}\.npy: not an array of numpy: "):
            count_files([name], "t", "p")
    np.save("f.npy", np.array([0.5]))
    np.save("o.npy", np.array([{}]), allow_pickle=True)
    for name in ("f.npy", "o.npy"):
        with pytest.raises(ValueError, match=r"expected whole numbers|not an array of numpy"):
            count_files([name], "t", "p")
    with pytest.raises(FileNotFoundError):
        count_files(["none.bin"], "t", "p")
    assert not (folder / "p").exists()
    assert not list(folder.glob(".*"))


def test_an_array_that_says_it_is_huge(folder: Path) -> None:
    np.save("a.npy", np.array([1, 2, 3]))
    content = (folder / "a.npy").read_bytes()
    (folder / "a.npy").write_bytes(content.replace(b"(3,), }" + b" " * 12, b"(1099511627776,), }"))
    with pytest.raises(ValueError, match=r"^a\.npy: not an array of numpy: "):
        count_files(["a.npy"], "t", "p")


def test_tokenizers_that_cannot_be_used(folder: Path) -> None:
    for content in ("", "{}", "[" * 200_000, '{"model": {"type": "BPE"}}'):
        (folder / "t/tokenizer.json").write_text(content)
        with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer: "):
            count_files(["a.txt"], "t", "o")
    model = {"type": "WordLevel", "vocab": {"[UNK]": 0, "Ada": 2**31}, "unk_token": "[UNK]"}
    (folder / "t/tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    with pytest.raises(ValueError, match=r"its 2 tokens have ids up to 2147483648$"):
        count_files(["a.txt"], "t", "o")
    (folder / "u").mkdir()
    with pytest.raises(FileNotFoundError, match=r"^u: not a folder of a tokenizer: expected "):
        count_files(["a.txt"], "u", "o")
    with pytest.raises(FileNotFoundError, match=r"^v: no such file, and no folder of a tokenizer"):
        count_files(["a.txt"], "v", "o")


def test_outputs_and_arguments(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"the output is an input too$"):
        count_files(["a.txt"], "t", "a.txt")
    with pytest.raises(ValueError, match=r"the output is an input too$"):
        count_files(["a.txt"], "t", "t/spiece.model")
    (folder / "full").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"^full: expected a file, got a device or a pipe$"):
        count_files(["a.txt"], "t", "full")
    with pytest.raises(ValueError, match=r"^by must be one of group, language: got 'x'$"):
        count_files(["a.txt"], "t", "o", by="x")
    with pytest.raises(ValueError, match=r"^give at least one file: got none$"):
        count_files([], "t", "o")
    with pytest.raises(ValueError, match=r"exclude each other"):
        count_files(["a.txt"], "t", "o", by="language", groups=[("a", "*")])
    with file_size_limited(500), pytest.raises(OSError, match=r"File too large") as caught:
        count_files(["a.txt"], "t", "o")
    assert caught.value.filename == "o"
    assert isinstance(count_files(["a.txt"], "t", "o").counts, Counts)
