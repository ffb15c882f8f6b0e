"""Readers of sentences: every usual file, and what must not be taken in silence."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ner.columns import (
    ColumnCounts,
    Columns,
    _read_carefully,
    read_lines,
    read_paragraphs,
)
from lmcore.ner.labels import LabelReader, generation_as_bio, write_labels
from lmcore.ner.reading import SentenceReader, read_sentences
from lmcore.ner.rows import parse_sentence
from lmcore.ner.sentences import check_words
from lmcore.ops.entities import decode_spans

COLUMNS = "New\tB-city\nYork\tI-city\n.\tO\n\nHi\tO\n"


def read(path: Path, text: str | bytes, **options: Any) -> SentenceReader:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_sentences(path, **options)


def words_and_labels(reader: SentenceReader) -> list[tuple[list[str], list[str]]]:
    return [([*sentence.words], [*sentence.labels]) for sentence in reader]


EXPECTED = [(["New", "York", "."], ["B-city", "I-city", "O"]), (["Hi"], ["O"])]


# Columns.


@pytest.mark.parametrize(
    "text",
    [
        COLUMNS,
        COLUMNS.removesuffix("\n"),
        COLUMNS + "\n\n\n",
        "\n\n" + COLUMNS,
        "\ufeff" + COLUMNS,
        COLUMNS.replace("\n", "\r\n"),
        COLUMNS.replace("\n\n", "\n \t\n"),
        COLUMNS.replace("\n", "  \n"),
        COLUMNS.replace("\t", " "),
        COLUMNS.replace("\t", "   "),
        COLUMNS.replace("\t", "\tNNP\tB-NP\t"),
        COLUMNS.replace("\t", " NNP B-NP "),
        "B-city\tNew\nI-city\tYork\nO\t.\n\nO\tHi\n",
        "B-city New\nI-city York\nO .\n\nO Hi\n",
        "-DOCSTART-\tO\n\n" + COLUMNS,
        "-DOCSTART- -X- -X- O\n\n" + COLUMNS.replace("\t", " NNP B-NP "),
        "# id 7 domain=en\n" + COLUMNS.replace("\t", " _ _ "),
        "S-city\tNew York\nO\t.\n\nO\tHi\n".replace(
            "S-city\tNew York", "B-city\tNew\nE-city\tYork"
        ),
        COLUMNS.replace("B-city", "I-city"),
    ],
)
def test_columns(tmp_path: Path, text: str) -> None:
    reader = read(tmp_path / "a.txt", text)
    assert words_and_labels(reader) == EXPECTED
    assert reader.report.sentences == 2
    assert reader.report.types_from == "labels"


def test_words_may_hold_spaces_where_tabs_separate(tmp_path: Path) -> None:
    reader = read(tmp_path / "a.txt", "New York\tB-big city\nx\tO\n")
    assert words_and_labels(reader) == [(["New York", "x"], ["B-big city", "O"])]


def test_named_columns(tmp_path: Path) -> None:
    text = "1 New B-city x\n2 York I-city y\n3 . O z\n\n1 Hi O x\n"
    with pytest.raises(ValueError, match=r"a\.txt:1: expected a label, .* got '1' and 'x'; name"):
        list(read(tmp_path / "a.txt", text))
    reader = read(tmp_path / "a.txt", text, word_column=2, label_column=3)
    assert words_and_labels(reader) == EXPECTED
    with pytest.raises(ValueError, match=r"a\.txt:1: expected 9 columns: got 4"):
        list(read(tmp_path / "a.txt", text, label_column=9, types=["city"]))


@pytest.mark.parametrize("columns", [(0, None), (None, -1), (2, 2)])
def test_columns_are_checked(tmp_path: Path, columns: tuple[int | None, int | None]) -> None:
    with pytest.raises(ValueError, match=r"column.* must"):
        read_sentences("a", word_column=columns[0], label_column=columns[1])


def test_compressed(tmp_path: Path) -> None:
    reader = read(tmp_path / "a.txt.gz", gzip.compress(COLUMNS.encode()))
    assert words_and_labels(reader) == EXPECTED


def test_the_name_of_the_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    for name, options, expected in (
        ("train.txt", {}, "music"), ("a.txt", {}, "a"), ("a.txt", {"dataset": "b"}, "b"),
    ):  # fmt: skip
        assert next(iter(read(folder / name, COLUMNS, **options))).dataset == expected


def test_lines_of_two_columns_are_read_at_once_as_one_by_one(tmp_path: Path) -> None:
    """Over the borders of the parts in which a file is read."""
    sentences = [[f"w{i}x{j}" for j in range(i % 7 + 1)] for i in range(30_000)]
    text = "\n\n".join("\n".join(f"{word}\tO" for word in words) for words in sentences)
    reader = read(tmp_path / "a.txt", text, types=["x"])
    assert [sentence.words for sentence in reader] == sentences
    odd = text + "\n\nodd\u00a0 \tO\n"
    path = tmp_path / "b.txt"
    for problem in ("odd", "x"):
        path.write_text(odd.replace("odd\u00a0", problem))
    line = text.count("\n") + 3
    with pytest.raises(ValueError, match=rf"b\.txt:{line}: word 1 must not be blank"):
        list(read(path, odd, types=["x"]))


pieces = st.sampled_from(
    ["a", "O", "B-x", "\t", "\t", "\n", "\n", "\n\n", " ", "\r\n", "é", "\x85", "-DOCSTART-"]
)
whole_lines = st.sampled_from(
    ["a\tO\n", "a b\tB-x\n", "é\tO\n", "\n", "\tO\n", "a\t\n", " a\tO\n", "a \tO\n", "a\t O\n",
     "a\tO \n", "a\tO\r\n", "a\tO\r\r\n", "a\rb\tO\n", "a\x0bb\tO\n", "a\u3000\tO\n", "a\tO\tO\n",
     "a\n"]
)  # fmt: skip


@given(st.lists(pieces, max_size=30) | st.lists(whole_lines, max_size=6))
def test_fast_and_careful_reading_agree(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    from lmcore._streams import open_input

    path = tmp_path_factory.mktemp("columns") / "a.txt"
    path.write_bytes("".join(parts).encode())
    with open_input(path) as source:
        paragraphs = list(read_paragraphs(source))
    lines = re.sub("[ \t\r]+\n", "\n", "".join(parts)).split("\n")
    for paragraph in paragraphs:
        assert "" not in paragraph.lines
        if paragraph.is_plain:
            columns = Columns(0, -1, True)
            words, labels = _read_carefully("a", paragraph, columns, ColumnCounts())
            fields = [line.split("\t") for line in paragraph.lines]
            assert [[*pair] for pair in zip(words, labels, strict=True)] == fields
            assert read_lines("a", paragraph, columns, ColumnCounts()) == (words, labels)
            check_words(words)  # which is not done where lines are plain
        first = paragraph.line - 1
        shown = lines[first : first + len(paragraph.lines)]
        assert [line.strip("\r\t ") for line in shown] == [
            line.strip("\r\t ") for line in paragraph.lines
        ]
    assert sum(len(p.lines) for p in paragraphs) == sum(bool(line) for line in lines)


# What is wrong with columns.


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there are no sentences"),
        ("\n\n", "there are no sentences"),
        ("a\tO\nb\n", ":1: expected a label|:2: expected 2 columns: got 1|:2: expected a label"),
        ("a\tx\n", ":1: expected a label, such as O or B-city, in the last or the first column"),
        ("a\tO\n\nb\tcity\n", ":3: expected a label"),
        ("a\tB-a)b\n", r":1: label of word 1, 'B-a\)b', holds a closing parenthesis"),
        ("a\tB-\n", ":1: expected a label"),
        ("a\tB- x\n", ":1: label of word 1, 'B- x', begins or ends with white space"),
        ("\tO\nb\tB-x\n", ":1: word 1 must not be blank"),
        ("a\tO\n\u00a0\tB-x\n", ":1: word 2 must not be blank, or begin or end with white space"),
        ("a\tO\n", "the labels name no entity type: give them as types"),
        (b"a\tO\n\nb\xff\tO\n", ":3: not UTF-8 at byte 2"),
        ("a\tO\n" * 4_500_000, ":1: expected an empty line between sentences: got none"),
    ],
    ids=lambda value: ascii(value)[:20],
)  # fmt: skip
def test_bad_columns(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.txt(: )?({problem})"):
        list(read(tmp_path / "a.txt", text))


def test_a_label_of_another_type(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.txt:1: label of word 1, 'B-city', is of none of"):
        list(read(tmp_path / "a.txt", COLUMNS, types=["person"]))


def test_bad_sentences_are_listed(tmp_path: Path) -> None:
    text = COLUMNS + "\nx\tB-a)b\n\ny\tO\n"
    reader = read(tmp_path / "a.txt", text, skip_bad_rows=True, types=["city"])
    assert words_and_labels(reader) == [*EXPECTED, (["y"], ["O"])]
    assert reader.report.bad_rows == 1
    assert "a.txt:7: label of word 1" in reader.report.listed_bad_rows[0]
    with pytest.raises(ValueError, match=r"no sentences that can be used; the first: .*a\.txt:1:"):
        list(read(tmp_path / "a.txt", "x\tB-a)b\n", skip_bad_rows=True, types=["x"]))


# Labels.


@pytest.mark.parametrize(
    ("labels", "expected", "repaired"),
    [
        ("O B-x I-x O", "O B-x I-x O", 0),
        ("I-x I-x O I-x", "B-x I-x O B-x", 2),
        ("B-x I-y", "B-x B-y", 1),
        ("B-x E-x S-x S-x", "B-x I-x B-x B-x", 0),
        ("B-x L-x U-x I-x", "B-x I-x B-x B-x", 1),
        ("E-x I-x", "B-x B-x", 2),
        ("B-x M-x E-x", "B-x I-x I-x", 0),
        ("", "", 0),
    ],
)
def test_ways_of_labels(labels: str, expected: str, repaired: int) -> None:
    reader = LabelReader()
    for _ in range(2):
        assert reader.read(labels.split()) == expected.split()
    assert reader.repaired == 2 * repaired


bio = st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), max_size=9).map(
    lambda labels: LabelReader().read(labels)
)


@given(bio)
def test_labels_come_back(labels: list[str]) -> None:
    for boundaries in ("bio", "bioes"):
        reader = LabelReader()
        assert reader.read(write_labels(labels, boundaries)) == labels
        assert reader.repaired == 0
    words = write_labels(labels, "bioes")
    text = " ".join(f"w({label})" for label in words)
    assert generation_as_bio(text) == " ".join(f"w({label})" for label in labels)
    assert {span.type for span in decode_spans(write_labels(labels, "io"), "conll")} == {
        span.type for span in decode_spans(labels, "conll")
    }


@pytest.mark.parametrize(
    ("label", "problem"),
    [("person", "must be O, or a type behind"), ("B-", "must be O"), ("o", "must be O"),
     ("X-a", "must be O"), ("B-a)", "closing parenthesis"), ("B-a\n", "white space"),
     ("B-a\nb", "line break"), ("B- ", "names no type"), (None, "must be O"), (3, "must be O")],
)  # fmt: skip
def test_bad_labels(label: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"label of word 2.*{problem}"):
        LabelReader().read(["O", label])


# Rows.

ROW = {"dataset": "d", "types": ["city"], "words": ["New", "York"], "labels": ["B-city", "I-city"]}
AUTHORS = {
    "dataset": "d", "split": "train", "label_list": ["city"],
    "instance": {"id": 7, "words": ["New", "York"], "labels": ["B-city", "I-city"],
                 "instruction_inputs": "", "prompt_labels": ""},
}  # fmt: skip
ENTITIES = {
    "dataset": "d", "types": ["city"], "text": "In New York.",
    "entities": [{"start": 3, "end": 11, "type": "city"}],
}  # fmt: skip


def write_rows(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_of_three_kinds(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", ROW, AUTHORS, ENTITIES)
    ours, theirs, listed = read_sentences(path)
    assert (ours.words, ours.labels, ours.types) == (
        ["New", "York"],
        ["B-city", "I-city"],
        ["city"],
    )
    assert (theirs.words, theirs.labels, theirs.id) == (ours.words, ours.labels, "7")
    assert listed.words == ["In", "New", "York", "."]
    assert listed.labels == ["O", "B-city", "I-city", "O"]
    assert (listed.text, listed.offsets) == ("In New York.", [(0, 2), (3, 6), (7, 11), (11, 12)])
    assert {sentence.dataset for sentence in (ours, theirs, listed)} == {"d"}


def test_types_of_rows_that_name_none(tmp_path: Path) -> None:
    rows = [{**ROW, "types": None}, {**ENTITIES, "types": None, "dataset": "e"},
            {**ROW, "types": None, "labels": ["O", "B-street"]}]  # fmt: skip
    reader = read_sentences(write_rows(tmp_path / "a.jsonl", *rows))
    assert [sentence.types for sentence in reader] == [
        ["city", "street"],
        ["city"],
        ["city", "street"],
    ]
    assert reader.report.types_from == "labels"
    more = read_sentences(write_rows(tmp_path / "a.jsonl", ROW), types=["person", "city"])
    assert [sentence.types for sentence in more] == [["city", "person"]]


def test_words_of_an_entity_list(tmp_path: Path) -> None:
    row = {**ENTITIES, "words": ["In", "New York", "."]}
    assert parse_sentence(row).labels == ["O", "B-city", "O"]
    cut = {**ENTITIES, "entities": [{"start": 3, "end": 5, "label": "city"}]}
    reader = read_sentences(write_rows(tmp_path / "a.jsonl", cut))
    (sentence,) = reader
    assert sentence.words == ["In", "Ne", "w", "York", "."]
    assert reader.report.cut_words == 1


BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "empty types": ({**ROW, "types": []}, "types must name at least one entity type: got none"),
    "empty label list": ({**AUTHORS, "label_list": []}, "at least one entity type"),
    "O as type": ({**ROW, "types": ["O", "city"]}, "type 'O' is what words outside"),
    "parenthesis": ({**ROW, "types": ["city", "a(b)"]}, "closing parenthesis"),
    "types twice": ({**ROW, "types": ["city", "city"]}, "types name 'city' twice"),
    "types as text": ({**ROW, "types": "city"}, "types must be a list of strings: got str"),
    "another type": ({**ROW, "types": ["person"]}, "label of word 1, 'B-city', is of none"),
    "no prefix": ({**ROW, "labels": ["city", "O"]}, "label of word 1 must be O, or a type behind"),
    "lengths": ({**ROW, "labels": ["O"]}, "same length as words: got 1 and 2"),
    "no words": ({**ROW, "words": [], "labels": []}, "the sentence holds no words"),
    "words as text": ({**ROW, "words": "New York"}, "words must be a list of strings: got str"),
    "a number": ({**ROW, "words": ["New", 7]}, "list of strings: got int as number 2"),
    "blank word": ({**ROW, "words": ["New", "\u3000"]}, "word 2 must not be blank"),
    "nothing": ({"types": ["city"]}, "expected words and labels, or text and entities"),
    "instance": ({**AUTHORS, "instance": 3}, "instance must be an object: got int"),
    "id": ({**ROW, "id": [1]}, "id must be a string"),
    "dataset": ({**ROW, "dataset": 3}, "dataset must be a string: got 3"),
    "entities": ({**ENTITIES, "entities": {}}, "entities must be a list: got dict"),
    "entity": ({**ENTITIES, "entities": [3]}, "entity 1 must be an object with"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows(tmp_path: Path, name: str) -> None:
    row, problem = BAD_ROWS[name]
    path = write_rows(tmp_path / "a.jsonl", ROW, row)
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: .*{re.escape(problem)}"):
        list(read_sentences(path))
    reader = read_sentences(path, skip_bad_rows=True)
    assert len(list(reader)) == reader.report.bad_rows == 1
    with pytest.raises((TypeError, ValueError), match=re.escape(problem)):
        parse_sentence(row)


TEXT = "Zoe\u0308 in 北京 👩‍👩‍👧 👍🏽 x"


@pytest.mark.parametrize(
    ("entities", "problem"),
    [
        ([(0, 3)], "entity 1, 0 to 3, cuts a character at 3: 'e"),
        ([(3, 5)], "cuts a character at 3"),
        ([(11, 12)], "entity 1, 11 to 12, cuts a character at 12"),
        ([(17, 18)], "cuts a character at 18"),
        ([(0, 400)], "within the 21 characters of the text, and hold some: got 0 to 400"),
        ([(-1, 2)], "got -1 to 2"),
        ([(4, 4)], "got 4 to 4"),
        ([(5, 4)], "got 5 to 4"),
        ([(4, 5)], "holds no word"),
        ([(0, 4), (0, 4)], "entities overlap: 'Zoë' (x, 0 to 4) and 'Zoë' (x, 0 to 4)"),
        ([(8, 10), (0, 4), (9, 10)], "entities overlap: '北京' (x, 8 to 10) and '京' (x, 9 to 10)"),
        ([(True, 4)], "start of entity 1 must be a whole number: got True"),
        ([(0, 4.0)], "end of entity 1 must be a whole number: got 4.0"),
        ([("0", 4)], "start of entity 1 must be a whole number"),
        ([(0, 10**30)], "entity 1 must lie within"),
    ],
)  # fmt: skip
def test_bad_offsets(entities: list[tuple[Any, Any]], problem: str) -> None:
    marked = [{"start": start, "end": end, "type": "x"} for start, end in entities]
    with pytest.raises((TypeError, ValueError)) as caught:
        parse_sentence({"text": TEXT, "entities": marked, "types": ["x"]})
    assert problem.replace("Zoë", "Zoe\u0308") in str(caught.value)


def test_entities_that_touch_are_no_overlap() -> None:
    marked = [{"start": 8, "end": 9, "type": "x"}, {"start": 9, "end": 10, "type": "x"}]
    row = {"text": TEXT, "entities": marked, "types": ["x"]}
    assert [label for label in parse_sentence(row).labels if label != "O"] == ["B-x", "B-x"]
    with pytest.raises(ValueError, match="cuts the word 'Zoë in'".replace("ë", "e\u0308")):
        parse_sentence({**row, "words": ["Zoe\u0308 in", "北"], "entities": [
            {"start": 0, "end": 4, "type": "x"}]})  # fmt: skip


# Folders.


def test_the_authors_folder(tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "label.txt").write_text("person\ncity\n")
    (folder / "train.txt").write_text(COLUMNS)
    (folder / "dev.txt").write_text("Hi\tO\n")
    reader = read_sentences(folder)
    first, _ = reader
    assert (first.types, first.dataset, first.id) == (["person", "city"], "letters", "0")
    assert reader.report.types_from == "label.txt"
    assert [sentence.words for sentence in read_sentences(folder, split="dev")] == [["Hi"]]
    with pytest.raises(FileNotFoundError, match=r"test\.txt"):
        list(read_sentences(folder, split="test"))
    (folder / "label.txt").write_text("person\nO\n")
    with pytest.raises(ValueError, match=r"label\.txt: type 'O'"):
        list(read_sentences(folder))
    with pytest.raises(ValueError, match="format rows reads a file: got a folder"):
        list(read_sentences(folder, format="rows"))
    with pytest.raises(
        ValueError, match=r"expected label\.txt and train\.txt, or what save_to_disk"
    ):
        list(read_sentences(tmp_path))


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_the_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["O", "B-city", "I-city"]
    features = datasets.Features(
        {"tokens": datasets.Sequence(datasets.Value("string")),
         "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names))}
    )  # fmt: skip
    rows = {"tokens": [["New", "York", "."], ["Hi"]], "ner_tags": [[1, 2, 0], [0]]}
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"test": data}).save_to_disk(tmp_path / "splits")
    reader = read_sentences(tmp_path / "one")
    assert words_and_labels(reader) == EXPECTED
    assert words_and_labels(read_sentences(tmp_path / "splits", split="test")) == EXPECTED
    with pytest.raises(ValueError, match="there is no split 'train': got test"):
        list(read_sentences(tmp_path / "splits"))
    plain = datasets.Dataset.from_dict({"words": [["New"]], "labels": [["B-city"]]})
    plain.save_to_disk(tmp_path / "plain")
    (sentence,) = read_sentences(tmp_path / "plain", format="datasets")
    assert (sentence.types, sentence.dataset) == (["city"], "plain")
    datasets.Dataset.from_dict({"a": [1]}).save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match="expected a column of words, one of words, tokens: got a"):
        list(read_sentences(tmp_path / "other"))
    (tmp_path / "one/state.json").write_text("{")
    with pytest.raises(ValueError, match="datasets cannot read it"):
        list(read_sentences(tmp_path / "one"))


# Real files.


@pytest.mark.parametrize(
    ("name", "count"),
    [("crossner/ai/test.txt", 431), ("crossner/politics/test.txt", 651),
     ("mit/movie/test.txt", 2443), ("zh_weibo/test.txt", 270),
     ("gner_predictions/GNER-IT-vllm/ADG.jsonl", 521)],
)  # fmt: skip
def test_real_files(data_dir: Path, name: str, count: int) -> None:
    reader = read_sentences(data_dir / "ner" / name)
    assert sum(len(sentence.words) > 0 for sentence in reader) == count == reader.report.sentences
    assert reader.report.bad_rows == 0
