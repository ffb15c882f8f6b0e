"""SentencePiece files: ids equal to sentencepiece's, and hostile files are refused by name."""

import random
import re
import struct
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from lmcore.openba.charsmap import CharacterMap
from lmcore.openba.pieces import PieceFile
from lmcore.openba.protobuf import Piece, PieceKind
from lmcore.worlds.openba import LANGUAGES, generate_documents, list_pieces, write_piece_file

CORPORA = [
    "corpora/en/tinyshakespeare.txt",
    "corpora/zh/hongloumeng.txt",
    "corpora/zh/thucnews_titles_dev.txt",
    "corpora/parallel/cmn_tatoeba.txt",
]
MODELS = ["chinese_llama_sp_20k", "mistral_v3_spm_32768", "sp_botchan_en_unigram_1000"]


@pytest.fixture(scope="module")
def piece_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pieces") / "spiece.model"
    write_piece_file(path, size=1500)
    return path


def read_lines(data_dir: Path) -> list[str]:
    texts = [(data_dir / name).read_bytes().decode() for name in CORPORA]
    return [line for text in texts for line in re.split(r"\r?\n", text)]


# Against sentencepiece.


@pytest.mark.parametrize("model", MODELS)
def test_ids_of_every_line_of_the_corpora(data_dir: Path, model: str) -> None:
    path = data_dir / f"tok/{model}.model"
    lines = read_lines(data_dir)
    assert len(lines) == 76_711
    opponent = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = PieceFile(path).to_tokenizer()
    for start in range(0, len(lines), 8192):
        part = lines[start : start + 8192]
        found = [made.ids for made in tokenizer.encode_batch_fast(part, add_special_tokens=False)]
        assert found == opponent.encode(part)


PARTS = [
    " ", "  ", "\t", "\n", "\r\n", "▁", "▁▁", "a", "b", "the", "Tom", "中", "国", "。", "é",
    "e\u0301", "\u3000", "ﬁ", "Ａ", "①", "\u200b", "\u00a0", "\u2028", "\x00", "\x01", "\x7f",
    "\u1112\u1161\u11ab", "e\u0323\u0302", "👍", "👨‍👩‍👧", "\ufffd", "½", "㎏", "İ", "ß",
    "-", "...",
]  # fmt: skip


@pytest.mark.parametrize("model", [*MODELS, "generated"])
def test_ids_of_made_up_texts(piece_file: Path, model: str, request: Any) -> None:
    """Runs of spaces, marks, controls, letters with marks, joined emoji."""
    path = piece_file
    if model != "generated":
        path = request.getfixturevalue("data_dir") / f"tok/{model}.model"
    draws = random.Random(0)
    texts = ["".join(draws.choices(PARTS, k=draws.randint(0, 12))) for _ in range(3000)]
    opponent = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = PieceFile(path).to_tokenizer()
    found = [made.ids for made in tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert [t for t, ids, own in zip(texts, found, opponent.encode(texts), strict=True)
            if ids != own] == []  # fmt: skip


@given(text=st.text(st.characters(blacklist_categories=["Cs"], min_codepoint=1), max_size=40))
def test_bytes_fall_back(piece_file: Path, text: str) -> None:
    """A generated file knows no letters of most scripts: bytes, and the same as sentencepiece's."""
    known = _OPEN.setdefault(piece_file, (
        PieceFile(piece_file).to_tokenizer(),
        sentencepiece.SentencePieceProcessor(model_file=str(piece_file)),
    ))  # fmt: skip
    ids = known[0].encode(text, add_special_tokens=False).ids
    assert ids == known[1].encode(text)
    # What comes back is the text, but for runs of spaces and for marks, which stand for spaces.
    expected = re.sub(" +", " ", text).strip(" ")
    assert known[0].decode(ids) == expected.rstrip(" ▁").replace("▁", " ")


_OPEN: dict[Path, Any] = {}


def test_long_runs_of_spaces_and_marks_take_no_longer(piece_file: Path) -> None:
    tokenizer = PieceFile(piece_file).to_tokenizer()
    for run in (" " * 300_000, "▁" * 50_000):
        assert len(tokenizer.encode(f"a{run}b").ids) > 2


def test_pieces_that_stand_for_no_text_are_not_found_in_one(piece_file: Path) -> None:
    tokenizer = PieceFile(piece_file).to_tokenizer()
    opponent = sentencepiece.SentencePieceProcessor(model_file=str(piece_file))
    for text in ("</s>", "a <unk> b", "<pad>", "<0x41>", "x<0xFF></s>", "<0xag>"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == opponent.encode(text), text
        assert min(ids) > 258


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_of_the_generated_corpus_are_tokens(piece_file: Path, language: str) -> None:
    file = PieceFile(piece_file)
    assert file.pieces == [Piece(*piece) for piece in list_pieces(1500)]
    tokenizer = file.to_tokenizer()
    for document in generate_documents(language, 300, 5):
        made = tokenizer.encode(document.text, add_special_tokens=False)
        words = [token.removeprefix("▁") for token in made.tokens]
        assert [word for word in words if word] == list(document.words)
        assert len(words) + 1 == document.token_count
        assert tokenizer.decode(made.ids) == document.text


# Hostile files.


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def piece(text: bytes, score: float = -1.0, kind: int = 1) -> bytes:
    scored = b"\x15" + struct.pack("<f", score)
    return field(1, field(1, text) + scored + bytes([3 << 3, kind]))


UNKNOWN = piece(b"<unk>", 0.0, 2)
GOOD = UNKNOWN + piece("▁".encode()) + piece(b"a")
BROKEN = {
    "it holds no pieces": b"",
    "the pieces 1 and 2 are both 'a'": UNKNOWN + piece(b"a") + piece(b"a"),
    "expected one piece for unknown text, got 0": piece(b"a"),
    "expected one piece for unknown text, got 2": UNKNOWN + piece(b"a", kind=2),
    "piece 1 has no text": UNKNOWN + piece(b""),
    "piece 1 is not UTF-8": UNKNOWN + piece(b"\xff"),
    "the score of piece 1 is nan": UNKNOWN + piece(b"a", float("nan")),
    "the score of piece 1 is inf": UNKNOWN + piece(b"a", float("inf")),
    "piece 1 is of the unknown type 9": UNKNOWN + piece(b"a", kind=9),
    "the score of piece 0 has 8 bytes, not 4": field(1, b"\x11" + b"\0" * 8),
    "1 pieces of bytes in a model without byte fallback": GOOD + piece(b"<0x41>", 0.0, 6),
    "0 pieces of bytes in a model with byte fallback": GOOD + field(2, b"\x98\x02\x01"),
    "a map of characters of 3 bytes with a table of 6579044": GOOD + field(3, field(2, b"dcd")),
    "a number where a text or a part is expected": b"\x08\x01",
    "a text or a part where a number is expected": GOOD + field(2, field(3, b"a")),
    "a field with the number 0": b"\x00",
    "a field of the kind 3": b"\x0b",
    "it ends within a number": b"\xff",
    "a number of more than ten bytes": b"\xff" * 11,
    "a field of 100 bytes where 2 are left": b"\x0a\x64ab",
    f"a field of {2**63} bytes where 0 are left": b"\x0a" + b"\x80" * 9 + b"\x01",
}


@pytest.mark.parametrize("reason", BROKEN)
def test_broken_files_are_refused_by_name(tmp_path: Path, reason: str) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(BROKEN[reason])
    with pytest.raises(ValueError, match=r"spiece\.model: ") as caught:
        PieceFile(path)
    assert str(caught.value) == f"{path}: not a SentencePiece model: {reason}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GOOD + field(2, b"\x18\x03"), "expected a model of the kinds unigram or bpe, got word"),
        (GOOD + field(2, b"\x18\x09"), "expected a model of the kinds unigram or bpe, got kind 9"),
        (GOOD + field(2, b"\xc0\x01\x01"), "its word marks stand behind words, expected before"),
        (GOOD + piece(b"b", kind=5) + field(2, b"\x18\x02"), "a BPE model with unused pieces"),
    ],
)
def test_models_of_other_kinds_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        PieceFile(path)


def find_problem(path: Path) -> str:
    """Why a file cannot be read; empty if it can."""
    try:
        PieceFile(path)
    except ValueError as error:
        return str(error)
    return ""


def test_every_beginning_of_a_file_is_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    read = 0
    for end in range(len(GOOD) + 1):
        path.write_bytes(GOOD[:end])
        problem = find_problem(path)
        read += not problem
        assert problem.startswith(f"{path}: not a SentencePiece model: " if problem else "")
    assert read == 3  # behind each piece but for none


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, b: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.model"
    path.write_bytes(b)
    problem = find_problem(path)
    assert problem.startswith(f"{path}: " if problem else "")


def test_files_of_other_libraries(tmp_path: Path) -> None:
    for content in (b"PK\x03\x04rest", b'{"model": {}}', b"\x80\x04\x95", b"the a of\n"):
        path = tmp_path / "tokenizer.json"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a SentencePiece model"):
            PieceFile(path)
    with pytest.raises(FileNotFoundError):
        PieceFile(tmp_path / "none.model")
    with pytest.raises(IsADirectoryError):
        PieceFile(tmp_path)


# Maps of characters.


def test_a_map_finds_what_unicode_says(data_dir: Path) -> None:
    found = CharacterMap(PieceFile(data_dir / "tok/chinese_llama_sp_20k.model").rules.charsmap)
    assert found.composes
    for text in ("ﬁ", "①", "e\u0301", "Ａ", "㎏", "\u1112\u1161\u11ab"):
        assert found.find(text) == unicodedata.normalize("NFKC", text)
    assert (found.find("a"), found.find("e"), found.find("\n")) == (None, None, " ")
    assert found.find("ﬁx") is None


def test_broken_maps_are_refused(data_dir: Path) -> None:
    """Whatever is changed, no search leaves the tables: it is refused, or it is a map."""
    content = PieceFile(data_dir / "tok/sp_botchan_en_unigram_1000.model").rules.charsmap
    draws = random.Random(1)
    refused = 0
    for _ in range(60):
        changed = bytearray(content)
        for _ in range(draws.choice([1, 30])):
            changed[draws.randrange(len(changed))] = draws.randrange(256)
        try:
            found = CharacterMap(bytes(changed))
        except ValueError:
            refused += 1
            continue
        for text in ("abc", "ﬁ", "中", "e\u0301", "\U0001f600"):
            found.find(text)
    assert 10 < refused < 60


def test_kinds_are_those_of_sentencepiece() -> None:
    assert [(kind.name, kind.value) for kind in PieceKind] == [
        ("NORMAL", 1), ("UNKNOWN", 2), ("CONTROL", 3), ("USER_DEFINED", 4), ("UNUSED", 5),
        ("BYTE", 6),
    ]  # fmt: skip
