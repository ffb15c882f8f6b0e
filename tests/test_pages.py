"""The pages of scores, of missed entities and of claims, as a browser shows them."""

from pathlib import Path
from typing import Any

import pytest

from browser import open_page
from claims import INFO, row
from lmcore.ner import score
from lmcore.ner.breakdown import break_down
from lmcore.ner.error_report import render_errors
from lmcore.ner.errors import find_errors
from lmcore.ner.labelled import LabelledRow
from lmcore.ner.report import render_html
from prediction_rows import make_rows

pytest.importorskip("matplotlib", reason="matplotlib draws the plots of the page of claims")
from lmcore.reproduce.page import format_html

WIDTHS = [1280, 390]
CHINESE = {
    "dataset": "一个名字很长的数据集" * 4,
    "types": ["组织机构", "地"],
    "words": list("中国人民银行在北京召开会议。") * 12,
    "labels": [*["B-组织机构", *["I-组织机构"] * 5], "O", "B-地", "I-地", *["O"] * 5] * 12,
    "prediction": "中国(B-地) 人民银行(B-组织机构) 在(O) 北京(B-地)",
}
LONG = {
    "dataset": "long",
    "types": ["x" * 80],
    "words": ["w" * 300, "a", "b" * 90],
    "labels": ["B-" + "x" * 80, "O", "O"],
    "prediction": "a(O)",
}


def check(measured: dict[str, Any]) -> None:
    assert measured["problems"] == []
    assert measured["wide"] == []
    assert not measured["scrolls"]


@pytest.mark.parametrize("width", WIDTHS)
def test_page_of_scores(width: int, tmp_path: Path) -> None:
    scores = score([CHINESE, LONG, *make_rows(200, datasets=["one", "two"])], worst=5)
    rows = [LabelledRow("f", 1, "one", ["a"], ["B-x"], ["O"], 0)]
    measured = open_page(render_html(scores, break_down(rows)), width, tmp_path, "h1", "mark")
    check(measured)
    assert len(measured["places"]["mark"]) > 20


@pytest.mark.parametrize("width", WIDTHS)
def test_page_of_missed_entities(width: int, tmp_path: Path) -> None:
    rows = [
        LabelledRow(f"{'long' * 40}.jsonl", 1, "set", [*data["words"]], [*data["labels"]],
                    ["O"] * len(data["words"]), 0)
        for data in (CHINESE, LONG)
    ]  # fmt: skip
    page = render_errors({"a" * 120: find_errors(rows), "b": find_errors(rows)})
    check(open_page(page, width, tmp_path))


@pytest.mark.parametrize("width", WIDTHS)
def test_page_of_claims(width: int, tmp_path: Path) -> None:
    rows = [row(1.0, 1.2), row(0.0, 0.1, id="a_claim_with_a_name_that_is_long_" * 2)]
    verdict, numbers = ".summary .badge", ".summary [data-column='measured here']"
    measured = open_page(format_html(rows, INFO), width, tmp_path, verdict, numbers)
    check(measured)
    # The verdict and the number of a claim are in view together, without scrolling sideways.
    pairs = zip(measured["places"][verdict], measured["places"][numbers], strict=True)
    for (left, top, right, _), (_, _, other_right, bottom) in pairs:
        assert 0 <= left < right <= width
        assert other_right <= width
        assert abs(bottom - top) < 500
