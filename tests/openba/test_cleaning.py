"""`lmcore.openba.cleaning` and `clean_files`: rules by name, texts, and files of texts."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmcore.openba import CleanConfig, clean_files, clean_texts
from lmcore.openba.cleaning import RULES, Duplicates, RuleCount, remove_duplicates

ENGLISH = "It rains in the north today, and we all stay at home with a book."
CHINESE = "今天北方下雨，我们都在家里看书。"
# For each rule of one text a text that it changes, and what is left of it.
CHANGED = {
    "html": ("<b>" + ENGLISH + "</b>", ENGLISH),
    "links": (ENGLISH + " https://a.org/b", ENGLISH),
    "emails": (CHINESE[:-1] + "a@b.com。", CHINESE),
    "phone_numbers": (CHINESE[:-1] + "13800138000。", CHINESE),
    "repeats": (ENGLISH[:-1] + "!!!!!!", ENGLISH[:-1] + "!"),
    "short_sentences": ("Go! " + ENGLISH, ENGLISH),
}


@pytest.mark.parametrize("rule", CHANGED)
def test_a_rule_has_a_name_a_switch_and_a_count(rule: str) -> None:
    text, left = CHANGED[rule]
    found = clean_texts([text, ENGLISH])
    assert found.texts == [left, ENGLISH]
    assert found.counts[rule].documents == 1
    assert found.counts[rule].characters == len(text) - len(left) - (rule in ("links",))
    assert sum(count.documents for count in found.counts.values()) == 1
    off = clean_texts([text], CleanConfig().without(rule))
    assert off.texts == [text]
    assert rule not in off.counts


def test_rules_of_duplicates() -> None:
    texts = [ENGLISH, None, ENGLISH, f"{CHINESE}{ENGLISH}"]
    found = remove_duplicates(texts, Duplicates())
    assert found.texts == [ENGLISH, None, None, CHINESE]
    assert found.counts["duplicate_documents"] == RuleCount(documents=1, characters=len(ENGLISH))
    assert found.counts["duplicate_paragraphs"] == RuleCount(documents=1, characters=len(ENGLISH))
    config = CleanConfig().without("duplicate_documents")
    assert remove_duplicates(texts, Duplicates(), config).texts == [ENGLISH, None, None, CHINESE]
    config = CleanConfig().without("duplicate_paragraphs")
    assert remove_duplicates(texts, Duplicates(), config).texts == [ENGLISH, None, None, texts[3]]
    config = config.without("duplicate_documents")
    assert remove_duplicates(texts, Duplicates(), config).texts == texts


def test_languages() -> None:
    pytest.importorskip("py3langid")
    french = "Il pleut dans le nord aujourd'hui, et nous restons tous à la maison avec un livre."
    found = clean_texts([ENGLISH, CHINESE, french, "x"], CleanConfig(languages=("en", "zh")))
    assert found.texts == [ENGLISH, CHINESE, None, None]
    assert found.counts["languages"] == RuleCount(documents=1, characters=len(french))
    assert CleanConfig(languages=("en",)).without("languages") == CleanConfig()
    with pytest.raises(ValueError, match=r"^language must be one of ace, af, .*, zh.*: got 'xx'"):
        clean_texts([ENGLISH], CleanConfig(languages=("xx",)))


def test_the_package_for_languages_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmcore.openba import cleaning

    cleaning._load_identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ImportError, match=r'py3langid is not installed: pip install ".*\[clean\]"'):
        clean_texts([ENGLISH], CleanConfig(languages=("en",)))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"minimum_words": 0}, "minimum_words must be from 1 to 2147483647: got 0"),
        ({"most_repeats": 1.5}, "most_repeats must be from 1"),
        ({"paragraph_sentences": True}, "paragraph_sentences must be from 1"),
        ({"languages": "en"}, "languages must be a tuple of codes: got 'en'"),
    ],
)
def test_settings_have_ranges(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^{reason}"):
        CleanConfig(**arguments)


def test_unknown_rules_are_named() -> None:
    with pytest.raises(ValueError, match=rf"^rule must be one of {', '.join(RULES)}: got 'x'"):
        CleanConfig().without("x")


# Files.


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_keep_other_keys_and_their_order(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "text": CHANGED["html"][0], "more": {"a": [1.5, None]}},
        {"id": 2, "text": "Go!"},
        {"text": ENGLISH, "id": 3},
        {"id": 4, "text": CHINESE + "\n", "x": "\u2028\x1b"},
    ]
    out = tmp_path / "out"
    summary = clean_files([write_rows(tmp_path / "a.jsonl", rows)], out)
    kept = [rows[0] | {"text": ENGLISH}, rows[3] | {"text": CHINESE}]
    assert read_rows(out / "a.jsonl") == kept
    assert [list(row) for row in read_rows(out / "a.jsonl")] == [list(row) for row in kept]
    assert (summary.documents, summary.kept_documents) == (4, 2)
    assert summary.characters == sum(len(row["text"]) for row in rows)
    assert summary.kept_characters == len(ENGLISH + CHINESE)
    assert summary.rules["empty"].documents == 1
    assert summary.rules["duplicate_documents"].documents == 1
    report = json.loads((out / "report.json").read_text())
    assert report["rules"]["html"] == {"documents": 1, "characters": 7}
    assert report["config"]["minimum_words"] == 10
    assert sorted(path.name for path in out.iterdir()) == ["a.jsonl", "report.json"]


def test_duplicates_are_found_over_files_of_all_forms(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "a.txt").write_text(f"{ENGLISH}\n\n{CHINESE}\n{ENGLISH}\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(f"{CHINESE}\nNot {ENGLISH}\n".encode()))
    table = pyarrow.table({"text": [CHINESE, None, "Now " + ENGLISH], "n": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "c.parquet")
    out = tmp_path / "out"
    files = [tmp_path / name for name in ("a.txt", "b.txt.gz", "c.parquet")]
    summary = clean_files(files, out)
    assert (out / "a.txt").read_text() == f"{ENGLISH}\n{CHINESE}\n"
    assert gzip.decompress((out / "b.txt.gz").read_bytes()).decode() == f"Not {ENGLISH}\n"
    assert read_rows(out / "c.jsonl") == [{"text": "Now " + ENGLISH}]
    assert summary.outputs == ["a.txt", "b.txt.gz", "c.jsonl"]
    assert summary.rules["duplicate_documents"].documents == 3
    again = clean_files([out / "a.txt", out / "b.txt.gz", out / "c.jsonl"], tmp_path / "again")
    assert again.characters == again.kept_characters == summary.kept_characters
    for name in summary.outputs:
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_neither_threads_nor_batches_change_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{k % 70} {ENGLISH} {k % 50} {CHINESE} http://a.org" for k in range(300)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    first = clean_files([tmp_path / "a.txt"], tmp_path / "one", threads=1)
    monkeypatch.setattr("lmcore.openba.cleaned_output._BYTES_AT_ONCE", 500)
    second = clean_files([tmp_path / "a.txt"], tmp_path / "two", threads=3)
    assert replace(first, hash_bytes=0) == replace(second, hash_bytes=0)
    for name in ("a.txt", "report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_bad_rows_are_named_or_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": 3}\n[]\n{"text": "\\ud800"}\n\xff\n{"x": NaN}\n{"text": "'
        + ENGLISH.encode() + b'"}\n{"text": "a", "text": "b"}\n'
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"a\.jsonl:1: expected a text under 'text', got 3"):
        clean_files([tmp_path / "a.jsonl"], tmp_path / "out")
    summary = clean_files([tmp_path / "a.jsonl"], tmp_path / "out", skip_bad_rows=True)
    assert (summary.documents, summary.bad_rows) == (1, 6)
    assert [row.partition("a.jsonl:")[2].split(":")[0] for row in summary.listed_bad_rows] == [
        "1", "2", "3", "4", "5", "7",
    ]  # fmt: skip


def test_names_that_meet_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a.txt", "b/a.txt", "report.json", "c.jsonl", "c.parquet"):
        (tmp_path / name).write_text(ENGLISH + "\n")
    out = tmp_path / "out"
    for names in (["a.txt", "b/a.txt"], ["a.txt", "a.txt"], ["report.json"], ["-", "-"]):
        files = [name if name == "-" else tmp_path / name for name in names]
        with pytest.raises(ValueError, match="its output is "):
            clean_files(files, out)
    with pytest.raises(ValueError, match=r"its output is c\.jsonl, as that of .*c\.jsonl"):
        clean_files([tmp_path / "c.jsonl", tmp_path / "c.parquet"], out)
    with pytest.raises(ValueError, match="the output is an input too"):
        clean_files([tmp_path / "a.txt"], tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="the output is an input too"):
        clean_files([tmp_path / "a.txt"], tmp_path / "link")
    with pytest.raises(ValueError, match="give at least one file"):
        clean_files([], out)
    assert (tmp_path / "a.txt").read_text() == ENGLISH + "\n"
    assert not out.exists()
