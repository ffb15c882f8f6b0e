"""Tokenizers with fewer pieces: the same ids where pieces stay, whole files, hostile files."""

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lmcore.compression.pieces.json_file import TokenizerFile, make_byte_alphabet
from lmcore.compression.pieces.merging import ListedMerges, ScoredMerges, derive_piece
from lmcore.compression.pieces.sentencepiece_file import (
    make_piece_table,
    read_piece_file,
    write_pruned_pieces,
)
from lmcore.compression.pieces.table import PieceTable
from lmcore.openba.pieces import PieceFile
from lmcore.openba.protobuf import PieceKind, write_field
from lmcore.worlds.openba import write_piece_file
from tiny_vocabularies import KINDS, read_lines, train_tokenizer

MODELS = ["chinese_llama_sp_20k", "mistral_v3_spm_32768", "sp_botchan_en_unigram_1000"]
CORPORA = ["en/tinyshakespeare", "zh/hongloumeng", "zh/thucnews_titles_dev"]


def draw_kept(
    table: PieceTable, random: random.Random, share: float, lines: list[list[int]]
) -> NDArray[np.int64]:
    """Places of some tokens with all that they need, and of the characters of some lines."""
    kept = set(table.find_required().tolist())
    place_of = {number: place for place, number in enumerate(table.ids.tolist())}
    seen = {place_of[number] for line in lines for number in line}
    kept.update(table.find_characters(sorted(seen)).tolist())
    for place in range(len(table)):
        if random.random() < share and table.is_built(place):
            kept.update([place, *table.find_parents(place)])
    return np.array(sorted(kept), np.int64)


def check_lines(
    before: list[list[int]], after: list[list[int]], new_ids: dict[int, int]
) -> tuple[int, int]:
    """Number of lines whose pieces all stay, and of others."""
    stay = 0
    for old, new in zip(before, after, strict=True):
        if all(number in new_ids for number in old):
            assert [new_ids[number] for number in old] == new
            stay += 1
    return stay, len(before) - stay


# SentencePiece.


def read_corpora(data_dir: Path, every: int) -> list[str]:
    files = [data_dir / f"corpora/{name}.txt" for name in CORPORA]
    return [line for file in files for line in file.read_text("utf-8").splitlines()[::every]]


@pytest.mark.parametrize("name", MODELS)
def test_real_piece_files(data_dir: Path, tmp_path: Path, name: str) -> None:
    file = read_piece_file(data_dir / f"tok/{name}.model")
    table = make_piece_table(file)
    opponent = sentencepiece.SentencePieceProcessor(model_file=file.name)
    lines = read_corpora(data_dir, 40)
    before = opponent.encode(lines)
    mixed = 0
    for seed, share in enumerate((0.05, 0.6, 0.97)):
        places = draw_kept(table, random.Random(seed), share, before)
        write_pruned_pieces(file, tmp_path / "new.model", places)
        pruned = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "new.model"))
        after = pruned.encode(lines)
        new_ids = {int(old): new for new, old in enumerate(places)}
        stay, go = check_lines(before, after, new_ids)
        mixed += stay > 0 and go > 0
        assert pruned.decode(after) == opponent.decode(before)
        assert pruned.vocab_size() == len(places)
        scores = [opponent.get_score(int(old)) for old in places]
        assert [pruned.get_score(new) for new in range(len(places))] == scores
    assert mixed >= 2


def test_every_kept_piece_of_bpe_is_built(data_dir: Path, tmp_path: Path) -> None:
    file = read_piece_file(data_dir / f"tok/{MODELS[1]}.model")
    table = make_piece_table(file)
    places = draw_kept(table, random.Random(7), 0.1, [])
    write_pruned_pieces(file, tmp_path / "new.model", places)
    model = PieceFile(tmp_path / "new.model").to_tokenizer().model
    normal = [table.texts[place] for place in places if table.kinds[place] == PieceKind.NORMAL]
    assert [text for text in normal if len(model.tokenize(text)) != 1] == []
    alone = [place for place in places if not table.find_parents(int(place))]
    assert 0 < len(alone) < len(places)  # the closure had something to do


def test_all_pieces_make_the_same_bytes(data_dir: Path, tmp_path: Path) -> None:
    for name in MODELS:
        file = read_piece_file(data_dir / f"tok/{name}.model")
        write_pruned_pieces(file, tmp_path / "new.model", np.arange(len(file.fields)))
        assert (tmp_path / "new.model").read_bytes() == Path(file.name).read_bytes()


def test_what_a_file_says_besides_stays(data_dir: Path, tmp_path: Path) -> None:
    from sentencepiece import sentencepiece_model_pb2

    old, new = (sentencepiece_model_pb2.ModelProto() for _ in range(2))
    file = read_piece_file(data_dir / f"tok/{MODELS[2]}.model")
    write_pruned_pieces(file, tmp_path / "new.model", np.arange(0, 1000)[:400])
    old.ParseFromString(Path(file.name).read_bytes())
    new.ParseFromString((tmp_path / "new.model").read_bytes())
    assert new.trainer_spec.vocab_size == 400
    new.trainer_spec.vocab_size = old.trainer_spec.vocab_size
    assert new.trainer_spec == old.trainer_spec
    assert new.normalizer_spec == old.normalizer_spec
    assert list(new.pieces) == list(old.pieces)[:400]


def test_pieces_that_must_stay(tmp_path: Path) -> None:
    write_piece_file(tmp_path / "s.model")
    file = read_piece_file(tmp_path / "s.model")
    before = (tmp_path / "s.model").read_bytes()
    with pytest.raises(ValueError, match=r"piece 1, '</s>', is control and must stay$"):
        write_pruned_pieces(file, tmp_path / "s.model", np.array([0, 2, 3]))
    with pytest.raises(ValueError, match=r"must rise$"):
        write_pruned_pieces(file, tmp_path / "s.model", np.array([1, 0]))
    with pytest.raises(IndexError, match=r"got 0 to \d+$"):
        write_pruned_pieces(file, tmp_path / "s.model", np.array([0, len(file.fields)]))
    assert (tmp_path / "s.model").read_bytes() == before


def train_pieces(folder: Path, kind: str, **options: Any) -> PieceFile:
    (folder / "text").write_text("\n".join(read_lines()), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "m"), model_type=kind,
        minloglevel=5, hard_vocab_limit=False, **options,
    )  # fmt: skip
    return read_piece_file(folder / "m.model")


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("fallback", [False, True])
def test_trained_piece_files(tmp_path: Path, kind: str, fallback: bool) -> None:
    """With symbols of a user in them, which no merge may touch."""
    file = train_pieces(
        tmp_path, kind, vocab_size=700 if fallback else 350, byte_fallback=fallback,
        user_defined_symbols=["met", "ok🙂"], character_coverage=0.98,
    )  # fmt: skip
    table = make_piece_table(file)
    old = sentencepiece.SentencePieceProcessor(model_file=file.name)
    lines = [*read_lines(), "metmet metal ok🙂 Ada zzz 東 met", ""]
    before = old.encode(lines)
    total = [0, 0]
    for seed in range(12):
        places = draw_kept(table, random.Random(seed), (seed + 1) / 13, before)
        write_pruned_pieces(file, tmp_path / "new.model", places)
        new = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "new.model"))
        after = new.encode(lines)
        found = check_lines(before, after, {int(o): n for n, o in enumerate(places)})
        total = [a + b for a, b in zip(total, found, strict=True)]
        assert new.decode(after) == old.decode(before)
    assert min(total) > 20


# tokenizer.json.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenizerFile]:
    folder = tmp_path_factory.mktemp("json")
    for kind in KINDS:
        (folder / f"{kind}.json").write_text(train_tokenizer(kind), encoding="utf-8")
    return {kind: TokenizerFile(folder / f"{kind}.json") for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)  # each writes, loads and runs a tokenizer
@given(data=st.data())
def test_random_kept_sets(trained: dict[str, TokenizerFile], kind: str, data: Any) -> None:
    """The file loads, each piece that stays can be reached, and lines whose pieces stay agree."""
    file = trained[kind]
    old = Tokenizer.from_str(train_tokenizer(kind))
    lines = [*read_lines()[:30], *read_lines()[-5:], *data.draw(st.lists(st.text(max_size=20)))]
    before = [made.ids for made in old.encode_batch(lines)]
    share = data.draw(st.floats(0, 1))
    places = draw_kept(file.table, random.Random(data.draw(st.integers(0, 9999))), share, before)
    new_ids = {int(number): i for i, number in enumerate(file.table.ids[places])}
    path = Path(file.name).with_suffix(".new")
    file.write_pruned(path, new_ids)
    new = Tokenizer.from_file(str(path))
    after = [made.ids for made in new.encode_batch(lines)]
    unknown = old.token_to_id("[UNK]")
    known = [i for i, ids in enumerate(before) if unknown is None or unknown not in ids]
    check_lines([before[i] for i in known], [after[i] for i in known], new_ids)
    for i in known:
        assert new.decode(after[i]) == old.decode(before[i])
    texts = [file.table.texts[place] for place in places]
    assert new.get_vocab() == {text: i for i, text in enumerate(texts)}
    for place, text in zip(places, texts, strict=True):
        if file.table.kinds[place] == PieceKind.NORMAL and kind in ("bytes", "fallback"):
            assert [token.value for token in new.model.tokenize(text)] == [text]


@pytest.mark.parametrize("kind", KINDS)
def test_all_tokens_make_an_equal_file(trained: dict[str, TokenizerFile], kind: str) -> None:
    file = trained[kind]
    path = Path(file.name).with_suffix(".all")
    file.write_pruned(path, {number: number for number in file.table.ids.tolist()})
    assert json.loads(path.read_text("utf-8")) == json.loads(train_tokenizer(kind))


def test_templates_and_padding_get_new_ids(trained: dict[str, TokenizerFile]) -> None:
    for kind in ("unigram", "wordpiece"):
        old = Tokenizer.from_str(train_tokenizer(kind))
        # Special tokens behind the others, so that their ids must change.
        content = json.loads(train_tokenizer(kind))
        old.add_special_tokens(["<new>"])
        content["added_tokens"].append(json.loads(old.to_str())["added_tokens"][-1])
        number = old.token_to_id("<new>")
        content["post_processor"] = {
            "type": "Sequence",
            "processors": [
                {"type": "RobertaProcessing", "sep": ["<new>", number], "cls": ["<new>", number],
                 "trim_offsets": True, "add_prefix_space": False}
            ],
        }  # fmt: skip
        content["padding"] = {
            "strategy": {"Fixed": 9}, "direction": "Right", "pad_id": number,
            "pad_to_multiple_of": None, "pad_type_id": 3, "pad_token": "<new>",
        }  # fmt: skip
        path = Path(trained[kind].name).with_suffix(".special")
        path.write_text(json.dumps(content), "utf-8")
        file = TokenizerFile(path)
        places = draw_kept(file.table, random.Random(0), 0.3, [])
        file.write_pruned(path, {int(n): i for i, n in enumerate(file.table.ids[places])})
        made = Tokenizer.from_file(str(path)).encode("a")
        last = len(places) - 1
        body = len(Tokenizer.from_str(train_tokenizer(kind)).encode("a", add_special_tokens=False))
        assert made.ids[0] == last
        assert made.ids[body + 1 :] == [last] * (8 - body)
        assert made.tokens[-1] == "<new>"
        assert json.loads(path.read_text("utf-8"))["padding"]["pad_type_id"] == 3


def test_older_forms_of_merges(tmp_path: Path, trained: dict[str, TokenizerFile]) -> None:
    content = json.loads(train_tokenizer("bytes"))
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    del content["model"]["type"]
    (tmp_path / "t.json").write_text(json.dumps(content), "utf-8")
    file = TokenizerFile(tmp_path / "t.json")
    assert file.table.find_parents(400) == trained["bytes"].table.find_parents(400) != []
    file.write_pruned(tmp_path / "t.json", {i: i for i in range(300)})
    merges = json.loads((tmp_path / "t.json").read_text("utf-8"))["model"]["merges"]
    assert merges == content["model"]["merges"][: len(merges)] != []


@pytest.mark.parametrize(("prefix", "suffix"), [("##", ""), ("", "</w>"), ("##", "</w>")])
def test_merges_with_marks_of_words(tmp_path: Path, prefix: str, suffix: str) -> None:
    marks = {"continuing_subword_prefix": prefix, "end_of_word_suffix": suffix}
    given = {name: mark for name, mark in marks.items() if mark}
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", **given))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], **given)
    tokenizer.train_from_iterator(read_lines(), trainer)
    tokenizer.save(str(tmp_path / "t.json"))
    file = TokenizerFile(tmp_path / "t.json")
    lines = read_lines()
    before = [made.ids for made in tokenizer.encode_batch(lines)]
    seen = {number for ids in before for number in ids}
    assert all(file.table.is_built(number) for number in seen)
    total = [0, 0]
    for seed in range(6):
        places = draw_kept(file.table, random.Random(seed), 0.9, before)
        new_ids = {int(old): new for new, old in enumerate(places)}
        file.write_pruned(tmp_path / "new.json", new_ids)
        new = Tokenizer.from_file(str(tmp_path / "new.json"))
        found = check_lines(before, [made.ids for made in new.encode_batch(lines)], new_ids)
        total = [a + b for a, b in zip(total, found, strict=True)]
    assert min(total) > 5


def test_of_merges_that_stand_twice_the_last_place_counts() -> None:
    pairs = [("a", "b"), ("b", "c"), ("a", "b")]
    vocabulary = {text: i for i, text in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    for more in ([("a", "bc")], [("ab", "c")], [("ab", "c"), ("a", "bc")]):
        model = models.BPE(vocabulary, pairs + more)
        # Loaded from JSON, as files are; the arguments of the class go another way.
        tokenizer = Tokenizer.from_str(Tokenizer(model).to_str())
        content = json.loads(tokenizer.to_str())
        content["model"]["merges"] = [list(pair) for pair in pairs + more]
        tokenizer = Tokenizer.from_str(json.dumps(content))
        tokens = [token.value for token in tokenizer.model.tokenize("abc")]
        found = derive_piece("abc", ListedMerges(pairs + more))
        assert (tokens == ["abc"]) == (found is not None)
        if found is not None:
            assert "bc" in found


def test_pieces_that_nothing_builds() -> None:
    """`abc` needs `bc`, and `ab` comes first: it is in the file, and never in a text."""
    merges = ScoredMerges({"ab": -1.0, "bc": -2.0, "abc": -3.0, "xab": -4.0})
    assert derive_piece("abc", merges) == ["a", "b", "c", "ab", "abc"]
    listed = ListedMerges([("a", "b"), ("b", "c"), ("a", "bc")])
    assert derive_piece("abc", listed) is None
    # A symbol of a user stands before the first merge.
    assert derive_piece("abc", ScoredMerges({"bc": -1.0, "abc": -2.0}, ["ab"])) is None


def test_unknown_characters_cost_what_they_did() -> None:
    """Without the piece of the least score the segmentation beside an unknown one would change."""
    pieces = [("<unk>", 0.0), ("pq", -20.0), ("rs", -20.0), ("qrs", -1.0), ("zz", -30.0)]

    def encode(kept: list[int]) -> list[str]:
        model = models.Unigram([pieces[place] for place in kept], 0)
        return [token.value for token in model.tokenize("pqrs")]

    table = PieceTable(
        algorithm="unigram", ids=np.arange(5), texts=[text for text, _ in pieces],
        kinds=np.array([2, 1, 1, 1, 1], np.uint8), scores=np.array([x for _, x in pieces]),
    )  # fmt: skip
    # `p` alone is unknown, and costs 10 more than the least score.
    assert encode([0, 1, 2, 3, 4]) == ["pq", "rs"]
    assert encode([0, 1, 2, 3]) == ["p", "qrs"]
    assert encode(sorted({*table.find_required().tolist(), 1, 2, 3})) == ["pq", "rs"]


def test_symbols_of_users_are_worth_what_they_were(tmp_path: Path) -> None:
    """Their score follows from the greatest one: without its piece others would win over them."""
    pieces = [("<unk>", 0.0, 2), ("ab", 0.0, 4), ("a", -3.0, 1), ("b", -3.0, 1), ("zz", -1.0, 1)]
    pieces += [("▁", -3.5, 1), ("yy", -9.0, 1)]
    parts = [
        write_field(1, write_field(1, text.encode()) + b"\x15" + struct.pack("<f", score)
                    + write_field(3, kind))
        for text, score, kind in pieces
    ]  # fmt: skip
    (tmp_path / "m").write_bytes(b"".join([*parts, write_field(2, write_field(3, 1))]))
    file = read_piece_file(tmp_path / "m")

    def encode(places: list[int]) -> list[str]:
        write_pruned_pieces(file, tmp_path / "new", np.array(places))
        return list(PieceFile(tmp_path / "new").to_tokenizer().encode("ab").tokens)

    assert encode([*range(7)]) == ["▁", "ab"]
    assert encode([0, 1, 2, 3, 5, 6]) == ["▁", "a", "b"]
    required = make_piece_table(file).find_required().tolist()
    assert encode(sorted({*required, 2, 3, 5})) == ["▁", "ab"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": None}, "it holds no model"),
        ({"model": {"type": "Other", "vocab": {}}}, "a model of the type 'Other'"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 1, "b": 1}}}, "two tokens have the id 1"),
        ({"model": {"type": "WordPiece", "vocab": {"a": -1}}}, "the token 'a' has the id -1"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 2**80}}}, "an id is not below 2**63"),
        ({"model": {"type": "WordPiece", "vocab": {"a": True}}}, "not a table of tokens and ids"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}, "not pairs of pieces"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [1]}}, "not pairs of pieces"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}}}, "merges are not a list"),
        ({"model": {"type": "Unigram", "vocab": [["a", "b"]]}}, "not a list of pieces and scores"),
        ({"model": {"type": "Unigram", "vocab": [["a", 1, 2]]}}, "not a list of pieces and scores"),
        ({"model": {"type": "Unigram", "vocab": [["a", 1], ["a", 2]]}}, "a piece stands twice"),
        ({"model": {"type": "Unigram", "vocab": [["a", 1]], "unk_id": 1}}, "unknown token has the"),
        ({"model": {"vocab": {}, "end_of_word_suffix": 5}}, "its end_of_word_suffix is 5"),
        ({"added_tokens": {"a": 1}}, "added tokens are not a list"),
        ({"added_tokens": [{"id": "1", "content": "a"}]}, "added tokens are not a list"),
        ({"added_tokens": [{"id": 2, "content": "a"}]}, "the token 'a' has the ids 0 and 2"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    content = {"model": {"type": "WordPiece", "vocab": {"a": 0}}, "added_tokens": []}
    (tmp_path / "t.json").write_text(json.dumps({**content, **change}), "utf-8")
    with pytest.raises(ValueError, match=r"t\.json: not a tokenizer\.json: ") as caught:
        TokenizerFile(tmp_path / "t.json")
    assert text in str(caught.value)
    for broken in ('{"model": {"vocab": {"a": 0, "a": 1}}}', "[" * 100_000, "[1]", "{", "NaN"):
        (tmp_path / "t.json").write_text(broken)
        with pytest.raises(ValueError, match=r"t\.json: not a tokenizer\.json: "):
            TokenizerFile(tmp_path / "t.json")


def test_tokens_that_the_file_names_must_stay(trained: dict[str, TokenizerFile]) -> None:
    file = TokenizerFile(trained["unigram"].name)
    path = Path(file.name).with_suffix(".never")
    with pytest.raises(ValueError, match=r"it names the token 0, which does not stay$"):
        file.write_pruned(path, {i: i - 1 for i in range(1, 200)})
    file.content["post_processor"]["special_tokens"]["<s>"]["ids"] = [[]]
    with pytest.raises(ValueError, match=r"it names the token \[\], which does not stay$"):
        file.write_pruned(path, {i: i for i in range(200)})
    with pytest.raises(ValueError, match=r"without gaps$"):
        file.write_pruned(path, {i: i + 1 for i in range(200)})
    assert not path.exists()


def test_bytes_stay_together(trained: dict[str, TokenizerFile]) -> None:
    table = trained["bytes"].table
    required = {table.texts[place] for place in table.find_required()}
    assert set(make_byte_alphabet()) <= required
    table = trained["fallback"].table
    required = {table.texts[place] for place in table.find_required()}
    assert {f"<0x{byte:02X}>" for byte in range(256)} <= required
