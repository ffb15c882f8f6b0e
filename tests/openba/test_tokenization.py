"""`OpenBATokenizer`: the released ids, files written and read again, folders of the authors."""

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lmcore.openba.pieces import PieceFile
from lmcore.openba.tokenization_openba import CODE, NEWLINE, OpenBATokenizer, load_tokenizer
from lmcore.worlds.openba import generate_documents, write_piece_file

TEXTS = [
    "", " ", "Ada met Otto.", "<S> 大海是住在茶乡的铁匠。 <extra_id_0>", "a\n\nb\n", "x  y\t",
    "é한", "<extra_id_7><extra_id_99>", "</s><pad>",
]  # fmt: skip


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the size and layout of mT5's."""
    path = tmp_path_factory.mktemp("large") / "spiece.model"
    write_piece_file(path, size=250_100)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "spiece.model"
    write_piece_file(path)
    return path


def test_the_ids_of_the_released_models(large: Path) -> None:
    tokenizer = OpenBATokenizer(large, extra_tokens=NEWLINE)
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id] == [0, 1, 2]
    assert tokenizer.sentinel_ids == list(range(250_199, 250_099, -1))
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == 250_199
    assert tokenizer.prefix_ids == {"<R>": 250_200, "<S>": 250_201, "<X>": 250_202}
    assert tokenizer.convert_tokens_to_ids("\n") == 250_203
    assert len(tokenizer) == 250_204
    # What the released configurations say, for one, four and eight devices.
    assert [tokenizer.padded_size(n) for n in (1, 4, 8)] == [250_240, 250_368, 250_880]
    text = "<X> Ada met Otto.\nShe ran. <extra_id_3>"
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[5], ids[-2], ids[-1]) == (250_202, 250_203, 250_196, 1)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Ada met Otto.\n She ran."


def test_the_three_tokens_of_code(small: Path) -> None:
    plain, code = OpenBATokenizer(small), OpenBATokenizer(small, extra_tokens=CODE)
    assert len(code) == len(plain) + 3
    text = "if a:\n    return b\n\tc"
    ids = code(text, add_special_tokens=False)["input_ids"]
    assert [i - len(plain) for i in ids if i >= len(plain)] == [1, 2, 2, 1, 0]
    assert re.sub(" ", "", code.decode(ids)) == re.sub(" ", "", text)


def test_a_text_between_added_tokens_is_segmented_by_itself(small: Path) -> None:
    tokenizer = OpenBATokenizer(small)
    parts = ["Ada met", "Otto.", "三 a"]
    alone = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts]
    joined = tokenizer("<S>".join(parts), add_special_tokens=False)["input_ids"]
    stop = [tokenizer.prefix_ids["<S>"]]
    assert joined == alone[0] + stop + alone[1] + stop + alone[2]


@pytest.mark.parametrize("extra_tokens", [(), NEWLINE, CODE])
def test_saved_and_loaded_ids_are_the_same(
    small: Path, tmp_path: Path, extra_tokens: tuple[str, ...]
) -> None:
    tokenizer = OpenBATokenizer(small, extra_tokens=extra_tokens)
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "spiece.model").read_bytes() == small.read_bytes()
    loaded = OpenBATokenizer.from_pretrained(tmp_path)
    others = [loaded, pickle.loads(pickle.dumps(loaded)), copy.deepcopy(tokenizer)]
    # The file of tokenizers alone, and the SentencePiece file alone.
    (tmp_path / "spiece.model").unlink()
    others.append(OpenBATokenizer.from_pretrained(tmp_path))
    others[-1].save_pretrained(tmp_path)
    others.append(OpenBATokenizer.from_pretrained(tmp_path))
    texts = TEXTS + [document.text for document in generate_documents("zh", 20, 0)]
    for other in others:
        assert other(texts) == tokenizer(texts)
        assert (len(other), other.sentinel_ids) == (len(tokenizer), tokenizer.sentinel_ids)
        assert other.prefix_ids == tokenizer.prefix_ids
        assert other.init_kwargs["extra_tokens"] == list(extra_tokens)


def test_saved_ids_of_the_corpora(data_dir: Path, tmp_path: Path) -> None:
    """Scores that were written as text segment as those of the file do."""
    text = (data_dir / "corpora/zh/thucnews_titles_dev.txt").read_text(encoding="utf-8")
    lines = text.splitlines()
    for model in ("chinese_llama_sp_20k", "mistral_v3_spm_32768"):
        path = data_dir / f"tok/{model}.model"
        OpenBATokenizer(path).save_pretrained(tmp_path / model)
        loaded = OpenBATokenizer.from_pretrained(tmp_path / model)
        backend = PieceFile(path).to_tokenizer()
        own = [made.ids for made in backend.encode_batch(lines, add_special_tokens=False)]
        assert loaded(lines, add_special_tokens=False)["input_ids"] == own


def write_authors_folder(folder: Path, pieces: Path, added: dict[str, int]) -> None:
    """A folder as the authors released theirs, for a class that transformers no longer runs."""
    (folder / "spiece.model").write_bytes(pieces.read_bytes())
    sentinels = [f"<extra_id_{number}>" for number in range(100)]
    special: dict[str, Any] = {"additional_special_tokens": sentinels} | {
        "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
    }  # fmt: skip
    config = special | {
        "extra_ids": 100, "model_max_length": 10**30, "sp_model_kwargs": {},
        "tokenizer_class": "OpenBATokenizer", "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "added_tokens.json").write_text(json.dumps(added))


def test_a_folder_of_the_authors(small: Path, tmp_path: Path) -> None:
    plain = OpenBATokenizer(small)
    added = plain.prefix_ids | {"\t": len(plain), "\n": len(plain) + 1}
    write_authors_folder(tmp_path, small, added)
    loaded = OpenBATokenizer.from_pretrained(tmp_path)
    assert loaded.sentinel_ids == plain.sentinel_ids
    assert [loaded.convert_tokens_to_ids(name) for name in added] == list(added.values())
    text = "<S> Ada\tmet\n<extra_id_0>"
    ids = loaded(text)["input_ids"]
    assert {len(plain), len(plain) + 1} < set(ids)
    loaded.save_pretrained(tmp_path / "saved")
    assert OpenBATokenizer.from_pretrained(tmp_path / "saved")(text)["input_ids"] == ids


def test_a_folder_whose_ids_are_others_is_refused(small: Path, tmp_path: Path) -> None:
    write_authors_folder(tmp_path, small, {"<new>": 5000})
    with pytest.raises(ValueError, match=r"^the token '<new>' has the id 5000 there, expected \d+"):
        OpenBATokenizer.from_pretrained(tmp_path)


def test_special_tokens_in_a_plain_text(small: Path) -> None:
    tokenizer = OpenBATokenizer(small)
    text = "<S> a </s> <extra_id_0>"
    assert len(set(tokenizer(text)["input_ids"]) & {1, *tokenizer.sentinel_ids}) == 2
    plain = tokenizer(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert not set(plain) & {1, *tokenizer.sentinel_ids, *tokenizer.prefix_ids.values()}
    assert tokenizer.decode(plain) == text
    assert tokenizer(text)["input_ids"][-1] == 1  # as before


def test_batches_and_pairs(small: Path) -> None:
    tokenizer = OpenBATokenizer(small)
    batch = tokenizer(["Ada met Otto.", "Ada"], padding=True, return_tensors="np")
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch["input_ids"][1].tolist()[2:] == [0, 0, 0]
    assert sorted(batch) == ["attention_mask", "input_ids"]
    pair = tokenizer("Ada", "Otto.")["input_ids"]
    assert pair.count(1) == 2
    assert pair[-1] == 1


def test_bad_arguments(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^extra_ids must be from 0 to 10000: got -1$"):
        OpenBATokenizer(small, extra_ids=-1)
    with pytest.raises(ValueError, match=r"got neither$"):
        OpenBATokenizer()
    with pytest.raises(ValueError, match=r"^tensor_parallel must be at least 1: got 0$"):
        OpenBATokenizer(small).padded_size(0)
    (tmp_path / "spiece.model").write_bytes(small.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        OpenBATokenizer(tmp_path / "spiece.model")


def test_other_numbers_of_sentinels(small: Path) -> None:
    size = len(PieceFile(small).pieces)
    tokenizer = OpenBATokenizer(small, extra_ids=3, prefixes=("<S>",))
    assert tokenizer.sentinel_ids == [size + 2, size + 1, size]
    assert tokenizer.prefix_ids == {"<S>": size + 3}
    none = OpenBATokenizer(small, extra_ids=0, prefixes=())
    assert (none.sentinel_ids, none.prefix_ids, len(none)) == ([], {}, size)


def test_files_without_padding_get_it_last(data_dir: Path) -> None:
    tokenizer = OpenBATokenizer(data_dir / "tok/chinese_llama_sp_20k.model")
    assert tokenizer.pad_token_id == len(tokenizer) - 1 == 20_103
    assert tokenizer("我爱北京")["input_ids"][-1] == tokenizer.eos_token_id == 2


def test_auto_tokenizer_knows_the_class(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("lmcore.openba.registration")
    OpenBATokenizer(small).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "openba"}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, OpenBATokenizer)


def test_folders_of_something_else_are_refused_by_name(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^/.*: not a tokenizer that can be loaded: expected "):
        load_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_tokenizer(tmp_path / "none")
    OpenBATokenizer(small).save_pretrained(tmp_path)
    assert len(load_tokenizer(tmp_path)) == len(load_tokenizer(small))
    (tmp_path / "spiece.model").unlink()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = tmp_path / name
        content = path.read_bytes()
        for broken in (b"", b"{}", b"[" * 200_000, content[:-20], content.replace(b"Unigram", b"A"),
                       b"\x80\x04\x95", b'{"extra_ids": -1}'):  # fmt: skip
            if broken in (content, b"{}" if "config" in name else None):
                continue
            path.write_bytes(broken)
            with pytest.raises(ValueError, match=r"^/.*: not a tokenizer that can be loaded: "):
                load_tokenizer(tmp_path)
        path.write_bytes(content)
