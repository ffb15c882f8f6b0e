"""Pairs: items are the tokens of sources and ended targets, in order, whatever batch or kill."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from commands import file_size_limited
from lmcore.openba import (
    IndexedDataset,
    OpenBATokenizer,
    pack_files,
    pack_pairs,
    packing,
    pair_packing,
)
from lmcore.openba.documents import read_documents
from lmcore.openba.models import find_ids
from lmcore.ops.denoising import pair_batch
from lmcore.worlds.openba import make_world, write_piece_file
from stopped_runs import Stop, stop_after

TEXTS = [*make_world(1, documents=60).texts, "three  spaces ", "</s> <S> plain", "é" * 300]
ROWS = [{"source": text, "target": text[::-1], "task": "t", "language": "en"} for text in TEXTS] + [
    {"source": "译：中文", "target": "English", "language": "zh", "id": [1]}
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> OpenBATokenizer:
    path = tmp_path_factory.mktemp("pieces") / "spiece.model"
    write_piece_file(path)
    return OpenBATokenizer(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows("a.jsonl", ROWS)
    return tmp_path


def write_rows(name: str, rows: list[Any]) -> None:
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    Path(name).write_text(text, encoding="utf-8")


def encode(tokenizer: Any, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return list(ids)


def outputs(name: str = "o") -> list[bytes]:
    return [Path(f"{name}.{ending}").read_bytes() for ending in ("bin", "idx", "json")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_items_are_sources_and_ended_targets(folder: Path, tokenizer: OpenBATokenizer) -> None:
    summary = pack_pairs(["a.jsonl"], tokenizer, "o")
    data = IndexedDataset("o", vocabulary_size=len(tokenizer))
    assert summary.pairs == len(data) == len(ROWS)
    for row, item in zip(ROWS, data, strict=True):
        assert item.source.tolist() == encode(tokenizer, str(row["source"]))
        assert item.target.tolist() == [*encode(tokenizer, str(row["target"])), 1]
    assert data.multi_task.tolist() == list(range(len(ROWS)))
    assert not len(data.span_corruption)
    assert (summary.source_tokens, summary.target_tokens) == tuple(data.sizes.sum(axis=0))
    numbers = json.loads((folder / "o.json").read_text())
    assert numbers["pairs"] == len(ROWS)
    assert "resumed_pairs" not in numbers
    assert names(folder) == ["a.jsonl", "o.bin", "o.idx", "o.json"]


def test_the_lengths_are_those_that_cut_nothing(folder: Path, tokenizer: OpenBATokenizer) -> None:
    summary = pack_pairs(["a.jsonl"], tokenizer, "o")
    data = IndexedDataset("o")
    sources, targets = [item.source for item in data], [item.target for item in data]
    encoder, decoder = summary.encoder_lengths["max"], summary.decoder_lengths["max"]
    for width, other in ((encoder, decoder), (encoder - 1, decoder), (encoder, decoder - 1)):
        batch = pair_batch(
            sources, targets, encoder_width=width, decoder_width=other, ids=find_ids(tokenizer),
            prefix=tokenizer.prefix_ids["<S>"],
        )  # fmt: skip
        assert tuple(batch.dropped.any(axis=0)) == (width < encoder, other < decoder)
    for lengths, side, more in (
        (summary.encoder_lengths, 0, 3), (summary.decoder_lengths, 1, 1)
    ):  # fmt: skip
        sizes = data.sizes[:, side] + more
        for share in (50, 90, 95, 99):
            limit = lengths[f"p{share}"]
            assert (sizes <= limit).mean() >= share / 100 > (sizes < limit).mean()


def test_no_summarize_is_appended(folder: Path, tokenizer: OpenBATokenizer) -> None:
    write_rows("b.jsonl", [{"source": "Ada met", "target": "Otto."}])
    pack_pairs(["b.jsonl"], tokenizer, "o")
    assert tokenizer.decode(IndexedDataset("o")[0].source) == "Ada met"


def test_files_of_gzip_and_several_files(folder: Path, tokenizer: OpenBATokenizer) -> None:
    pack_pairs(["a.jsonl"], tokenizer, "o")
    write_rows("b.jsonl", ROWS[:7])
    write_rows("c.jsonl", ROWS[7:])
    Path("c.jsonl.gz").write_bytes(gzip.compress(Path("c.jsonl").read_bytes()))
    done: list[int] = []
    pack_pairs(["b.jsonl", "c.jsonl.gz"], tokenizer, "p", progress=done.append)
    assert outputs("p") == outputs("o")
    assert done == sorted(done)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_BYTES_AT_ONCE", 40)
    monkeypatch.setattr(packing, "_SAVE_SECONDS", 0.0)


@pytest.mark.usefixtures("small_batches")
def test_a_run_that_ends_anywhere_goes_on_to_the_same_bytes(
    folder: Path, tokenizer: OpenBATokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_pairs(["a.jsonl"], tokenizer, "o")
    expected = outputs()
    for path in folder.glob("o.*"):
        path.unlink()
    for last in (0, 1, 2, 20, 21, 45, len(ROWS) - 3):
        with monkeypatch.context() as patch:
            patch.setattr(pair_packing, "read_documents", stop_after(last))
            with pytest.raises(Stop):
                pack_pairs(["a.jsonl"], tokenizer, "o")
        assert not (folder / "o.bin").exists()
    summary = pack_pairs(["a.jsonl"], tokenizer, "o")
    assert 50 < summary.resumed_pairs < summary.pairs
    assert outputs() == expected
    assert names(folder) == ["a.jsonl", "o.bin", "o.idx", "o.json"]


@pytest.mark.parametrize("step", ["json", "idx", "bin", "remove"])
def test_a_kill_between_the_outputs_loses_nothing(
    folder: Path, tokenizer: OpenBATokenizer, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    pack_pairs(["a.jsonl"], tokenizer, "o")
    expected = outputs()
    write_rows("b.jsonl", ROWS[:9])
    pack_pairs(["b.jsonl"], tokenizer, "o")
    with monkeypatch.context() as patch:
        if step == "json":
            patch.setattr(json, "dumps", _stop_at("source_tokens"))
        elif step == "idx":
            patch.setattr(pair_packing, "make_index", _stop)
        elif step == "bin":
            patch.setattr(pair_packing._PairRun, "_copy", _stop)
        else:
            patch.setattr(packing.Partial, "remove", _stop)
        with pytest.raises(Stop):
            pack_pairs(["a.jsonl"], tokenizer, "o")
    if step == "remove":
        assert outputs() == expected
    else:
        assert not (folder / "o.bin").exists()
    summary = pack_pairs(["a.jsonl"], tokenizer, "o")
    assert summary.resumed_pairs == summary.pairs  # the tokens were all there
    assert outputs() == expected
    assert names(folder) == ["a.jsonl", "b.jsonl", "o.bin", "o.idx", "o.json"]


def _stop(*_: Any, **__: Any) -> Any:
    raise Stop


def _stop_at(key: str) -> Any:
    dumps = json.dumps

    def stop(value: Any, **options: Any) -> str:
        if key in value:
            raise Stop
        return dumps(value, **options)

    return stop


@pytest.mark.usefixtures("small_batches")
def test_what_was_written_is_not_trusted(
    folder: Path, tokenizer: OpenBATokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pair_packing, "read_documents", stop_after(40))
        with pytest.raises(Stop):
            pack_pairs(["a.jsonl"], tokenizer, "o")
    # Groups of texts are something else.
    with pytest.raises(FileExistsError, match=r"^o\.bin: \d+ rows .* with another forms; start"):
        pack_files(["a.jsonl"], tokenizer, "o", length=5)
    (rows,) = folder.glob(".*-rows")
    content = bytearray(rows.read_bytes())
    content[9] ^= 1  # the size of a source
    rows.write_bytes(content)
    with pytest.raises(ValueError, match=r"^o\.bin: .* cannot be gone on with: "):
        pack_pairs(["a.jsonl"], tokenizer, "o")
    assert pack_pairs(["a.jsonl"], tokenizer, "o", resume=False).pairs == len(ROWS)


def test_bad_rows(folder: Path, tokenizer: OpenBATokenizer) -> None:
    lines = [
        '{"source": "Ada met", "target": "Otto."}', '{"source": "a"}',
        '{"source": "a", "target": " "}', '{"source": "\\n", "target": "b"}',
        '{"source": 5, "target": "b"}', "[]", '{"source": "a", "target": "b", "target": "c"}',
    ]  # fmt: skip
    Path("b.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"^b\.jsonl:2: expected a text under 'target', got None$"):
        pack_pairs(["b.jsonl"], tokenizer, "o")
    summary = pack_pairs(["b.jsonl"], tokenizer, "o", skip_bad_rows=True)
    assert (summary.pairs, summary.bad_rows) == (1, 6)
    assert summary.listed_bad_rows[1:4] == [
        "b.jsonl:3: the target is empty", "b.jsonl:4: the source is empty",
        "b.jsonl:5: expected a text under 'source', got 5",
    ]  # fmt: skip
    Path("c.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(ValueError, match=r"^c\.jsonl: expected rows, got none that can be used$"):
        pack_pairs(["c.jsonl"], tokenizer, "p", skip_bad_rows=True)
    assert not list(folder.glob("p.*")) + list(folder.glob(".*"))


def test_texts_without_tokens_are_counted(folder: Path, tokenizer: OpenBATokenizer) -> None:
    write_rows(
        "b.jsonl", [{"source": "\x01", "target": "Ada"}, {"source": "Ada", "target": "\x01"}]
    )
    summary = pack_pairs(["b.jsonl"], tokenizer, "o")
    data = IndexedDataset("o")
    assert summary.empty_sources == int((data.sizes[:, 0] == 0).sum())
    assert summary.empty_targets == int((data.sizes[:, 1] == 1).sum())
    assert len(list(read_documents(["b.jsonl"]))) == len(data) == 2


def test_outputs_that_cannot_be(folder: Path, tokenizer: OpenBATokenizer) -> None:
    (folder / "j.json").write_bytes((folder / "a.jsonl").read_bytes())
    with pytest.raises(ValueError, match=r"the output is an input too$"):
        pack_pairs(["j.json"], tokenizer, "j")
    for prefix in ("", "folder/"):
        with pytest.raises(ValueError, match=r"^the outputs need a name, got "):
            pack_pairs(["a.jsonl"], tokenizer, prefix)
    with pytest.raises(ValueError, match=r"^give at least one file: got none$"):
        pack_pairs([], tokenizer, "o")
    with file_size_limited(500), pytest.raises(OSError, match="File too large"):
        pack_pairs(["a.jsonl"], tokenizer, "o")
    assert pack_pairs(["a.jsonl"], tokenizer, "o").pairs == len(ROWS)
