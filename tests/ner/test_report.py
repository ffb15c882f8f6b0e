"""The table and the page of scores: what they show, and that the page is whole."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ner import Scores, score
from lmcore.ner.report import format_table, render_html
from lmcore.ops.entities import SCHEMES
from prediction_rows import VALID, make_rows, rows

_VOID = {"meta", "br", "hr", "img", "input", "link"}
# Elements whose content the parser hands over as text.
_ATTRIBUTES = {"html": {"lang"}, "meta": {"charset", "name", "content"}, "b": {"title"}}


class Page(HTMLParser):
    """Checks that every tag is closed in order and keeps what is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.shown: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= {"class", *_ATTRIBUTES.get(tag, set())}
        self.seen.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
            self.shown.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.shown[tag][-1] += data


HOSTILE = "<script>alert('x')</script>"
ROW: dict[str, Any] = {
    "dataset": '<b>"set" & co</b>',
    "label_list": ["per<i>", "org"],
    "words": [HOSTILE, "of", "&amp;", "北京", "lost"],
    "labels": ["B-per<i>", "O", "B-org", "I-org", "O"],
    "prediction": f"{HOSTILE}(O) of(B-per<i>) &amp;(B-org) </p>(I-<u>) <img src=x>(O) 北京(O)",
}


def test_page_escapes_what_rows_hold() -> None:
    scores = score([ROW, {**VALID, "dataset": "second"}, {"words": 1}], worst=5, skip_bad_rows=True)
    text = render_html(scores)
    page = Page(text)
    assert set(page.seen).isdisjoint({"script", "i", "u", "img"})
    assert page.shown["b"][0] == "gner"
    assert "<script" not in text
    assert "</p>(" not in text
    assert "&lt;script&gt;" in text
    assert any(HOSTILE in shown for shown in page.shown["section"])
    assert ROW["dataset"] in page.shown["td"]
    assert f"Worst sentences of {ROW['dataset']}" in page.shown["h2"]


def test_page_shows_both_label_rows_side_by_side() -> None:
    page = Page(render_html(score([ROW], scheme="strict", worst=5)))
    assert page.shown["h3"] == ["gold", "predicted"]
    gold, predicted = (
        shown
        for shown in page.shown["p"]
        if shown.endswith(" lost") and not shown.startswith("Words")
    )
    assert gold == f"✗{HOSTILE}\xa0per<i> of ✗&amp; 北京\xa0org lost"
    assert predicted == f"{HOSTILE} ✗of\xa0per<i> ✗&amp;\xa0org 北京 lost"
    marks = [f"✗{HOSTILE}\xa0per<i>", "✗of\xa0per<i>", "✗&amp; 北京\xa0org", "✗&amp;\xa0org"]
    assert sorted(page.shown["mark"][:4]) == sorted(page.shown["mark"][4:]) == sorted(marks)
    (details,) = page.shown["details"]
    assert "</p>\xa0I-<u>" in details, "the generated label as it was written"
    assert page.shown["del"] == ["</p>\xa0I-<u>", "<img src=x>"]
    assert page.shown["ins"] == ["lost"]
    (header,) = page.shown["header"]
    assert header == "row 04 wrong · lcs"


def test_page_shows_the_worst_sentences_first() -> None:
    made = make_rows(200, datasets=["one", "two"])
    scores = score(made, worst=4)
    page = Page(render_html(scores))
    sentences = [s for part in scores.datasets.values() for s in part.worst]
    assert len(sentences) == len(page.shown["section"]) == 8
    for sentence, header in zip(sentences, page.shown["header"], strict=True):
        assert header == f"row {sentence.row}{sentence.wrong} wrong · {sentence.matching}"
    assert "section" not in Page(render_html(score(made))).seen


def test_words_that_a_tokenizer_matched_are_not_shown_as_lost() -> None:
    row = {**VALID, "words": ["in", "Nëw", "York"], "prediction": "in(O) nw(B-x) york(O)"}
    scores = score([row], worst=1, back_tokenize=lambda words: [w.replace("ë", "") for w in words])
    (part,) = scores.datasets.values()
    assert (part.exact, part.substituted) == (1, 0)
    page = Page(render_html(scores))
    assert "del" not in page.seen
    assert "ins" not in page.seen


@pytest.mark.parametrize("scheme", SCHEMES)
def test_page_and_table_say_the_numbers(scheme: str) -> None:
    scores = score(make_rows(300, datasets=["one", "two"]), scheme=scheme, worst=1)
    page = Page(render_html(scores))
    table = format_table(scores)
    assert f"Scheme {scheme}." in page.shown["p"][0]
    assert table.startswith(f"scheme {scheme}\n")
    cells = page.shown["td"]
    for part in scores.datasets.values():
        numbers = [part.rows, *part.entities, part.exact, part.subsequence, part.lcs]
        numbers += [part.omitted, part.added, part.substituted, part.invalid_labels]
        texts = [*map(str, numbers), *(f"{100 * value:.2f}" for value in part.quality)]
        lines = [line.split() for line in table.splitlines() if line.startswith(part.name)]
        for text in texts:
            assert text in cells
            assert any(text in line for line in lines)
        assert lines[0][1:] == [
            str(part.rows),
            *(f"{100 * value:.2f}" for value in part.quality),
            *map(str, part.entities),
        ]
    mean = next(line.split() for line in table.splitlines() if line.startswith("mean"))
    assert mean[1:] == [f"{100 * value:.2f}" for value in scores.mean]


def test_one_data_set_needs_no_mean() -> None:
    scores = score([VALID])
    assert "mean" not in format_table(scores)
    assert "mean" not in Page(render_html(scores)).shown["td"]


def test_skipped_rows_are_shown() -> None:
    scores = score([VALID, *[{}] * 1003], skip_bad_rows=True)
    table, page = format_table(scores), Page(render_html(scores))
    assert "skipped 1003 bad rows" in table
    assert "  examples[1]: types: this key is missing" in table.splitlines()
    assert table.endswith("  and 3 more")
    assert "Skipped rows: 1003" in page.shown["h2"]
    assert len(page.shown["li"]) == 1000


def test_table_columns_are_aligned() -> None:
    made = make_rows(50, datasets=["a", "a much longer name", "b"])
    for block in format_table(score(made)).split("\n\n")[1:]:
        lines = [line for line in block.splitlines() if re.search(r"\s{2}", line)]
        ends = {len(line) for line in lines if not line.startswith("mean")}
        assert len(ends) == 1


def test_no_data_set() -> None:
    scores = Scores(scheme="gner", datasets={})
    Page(render_html(scores))
    assert format_table(scores).startswith("scheme gner")


def test_page_needs_no_other_file() -> None:
    text = render_html(score([ROW], worst=1))
    assert not re.search(r"\b(src|href)\s*=|@import|url\(", text.replace("src=x", ""))
    assert text.startswith("<!doctype html>\n<html lang=")
    assert '<meta charset="utf-8">' in text


@given(st.lists(rows(), min_size=1, max_size=3), st.sampled_from(SCHEMES))
def test_any_rows_make_a_whole_page(made: list[dict[str, Any]], scheme: str) -> None:
    scores = score(made, scheme=scheme, worst=3)
    page = Page(render_html(scores))
    assert len(page.shown.get("section", [])) == sum(len(d.worst) for d in scores.datasets.values())
    assert format_table(scores)
