"""Files of pairs in the forms in which data sets come, and what is wrong with some."""

import gzip
import re

import pytest

from lmcore.diffusion.pairs import Pair, PairReader, find_form, group_references


def read(path, content: bytes, **options):
    path.write_bytes(content)
    reader = PairReader(path, **options)
    return list(reader), reader


def test_every_form_gives_the_same_pairs(tmp_path):
    expected = [Pair("a b", "c, d"), Pair('"x"', "y")]
    rows = b'{"src": "a b", "trg": "c, d"}\n\n{"trg": "y", "src": "\\"x\\"", "n": 1}\n'
    assert read(tmp_path / "a.jsonl", rows)[0] == expected
    assert read(tmp_path / "a", rows)[0] == expected
    assert read(tmp_path / "a.tsv", b'a b\tc, d\n"x"\ty\n')[0] == expected
    table = b'mr,ref\n"a b","c, d"\n"""x""",y\n'
    assert read(tmp_path / "a.csv", table)[0] == expected
    assert read(tmp_path / "b.csv", b'n,trg,src\n1,"c, d",a b\n2,y,"""x"""\n')[0] == expected
    assert read(tmp_path / "a.csv.gz", gzip.compress(table))[0] == expected
    assert read(tmp_path / "c.txt", table, form="csv")[0] == expected


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b'{"src": "a", "trg": "b"}\n{"src": "a"}\n', "a.jsonl:2: trg is missing"),
        ("a.jsonl", b'{"src": "a", "trg": ""}\n', "a.jsonl:1: trg must not be empty"),
        ("a.jsonl", b'{"src": [], "trg": "b"}\n', "a.jsonl:1: src must be a text: got list"),
        ("a.jsonl", b'\n{"src": "a", "trg": NaN}\n', "a.jsonl:2: not valid JSON"),
        (
            "a.tsv",
            b"a\tb\na\tb\tc\n",
            "a.tsv:2: expected a source, a tab and a target: got 3 parts",
        ),
        ("a.tsv", b"a\t\n", "a.tsv:1: expected a source, a tab and a target: got 1 parts"),
        ("a.tsv", b"a\t\xff\n", "a.tsv:1: not UTF-8 at byte 3"),
        ("a.csv", b"a,b\n1,2\n", "a.csv:1: expected columns src and trg, or mr and ref"),
        ("a.csv", b'mr,ref\n"a,b\nc",d\n', "a.csv:2: not a line of CSV"),
        ("a.csv", b"mr,ref\na\n", "a.csv:2: expected 2 columns: got 1"),
        ("a.csv", b"mr,ref\n", "a.csv: the file holds no rows"),
        ("a.csv", b"", "a.csv: the file holds no rows"),
        ("a.jsonl", b"\n\n", "a.jsonl: the file holds no rows"),
    ],
)
def test_what_is_wrong_names_file_and_line(tmp_path, name, content, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        read(tmp_path / name, content)


def test_bad_rows_are_skipped_on_request(tmp_path):
    content = b'[]\n{"src": "a", "trg": "b"}\n{"src": "a", "trg": " "}\n'
    pairs, reader = read(tmp_path / "a.jsonl", content, skip_bad_rows=True)
    assert pairs == [Pair("a", "b")]
    assert reader.bad_rows == 2
    assert reader.listed_bad_rows[1].endswith("a.jsonl:3: trg must not be empty")


def test_names_of_columns_cannot_be_skipped(tmp_path):
    with pytest.raises(ValueError, match="expected columns"):
        read(tmp_path / "a.csv", b"x,y\n1,2\n", skip_bad_rows=True)


def test_an_unknown_form_is_refused(tmp_path):
    with pytest.raises(ValueError, match="format must be one of auto, jsonl, tsv, csv: got 'xml'"):
        PairReader(tmp_path / "a", form="xml")
    assert find_form("a.TSV.gz") == "tsv"


def test_files_of_the_data_sets(data_dir):
    texts = data_dir / "text"
    assert len(list(PairReader(texts / "qqp" / "valid.jsonl"))) == 2048
    wiki = group_references(PairReader(texts / "wiki_auto" / "valid.tsv.gz"))
    # A sentence that stands there twice has the references of both.
    assert sum(len(one.targets) for one in wiki) == 16_000
    assert min(len(one.targets) for one in wiki) == 8
    assert len(list(PairReader(texts / "e2e" / "devset.csv"))) == 4672
    assert len(list(PairReader(texts / "e2e" / "testset_w_refs.csv"))) == 4693
    assert len(list(PairReader(texts / "iwslt14" / "valid.jsonl"))) == 7283
