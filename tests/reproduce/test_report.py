"""The report says what was measured, and what was not."""

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from claims import CLAIM, INFO, PLOTS, row
from lmcore.reproduce.claim import (
    Measurement,
    Panel,
    Plot,
    Series,
    make_absent_row,
    make_row,
)
from lmcore.reproduce.page import format_html
from lmcore.reproduce.plots import format_plot
from lmcore.reproduce.report import format_json, write_report
from lmcore.reproduce.table import count_verdicts, describe_kept, format_table

ONE_SEED = dataclasses.replace(INFO, seeds=(0,))


@pytest.mark.parametrize("width", [None, 1, 100, 120, 500])
def test_the_table_fits_and_is_aligned(width: int | None) -> None:
    lines = format_table([row(1.0, 1.2), row(0.0, 0.1, describe_speed=None)], width).splitlines()
    assert max(map(len, lines)) <= (100 if width in (1, 100) else 120)
    assert len({line for line in lines if line.startswith("---")}) == 1
    column = lines[0].index("verdict")
    assert [line[column:] for line in lines if line.startswith("a_claim")] == [
        "reproduced",
        "not reproduced",
    ]
    text = "\n".join(lines)
    assert "1.1 ± 0.1" in text
    assert "speed  twice as fast as before" in text
    assert "rule   The score is at least 1." in text
    assert "2 seeds" in text


def test_a_report_of_one_seed_says_so() -> None:
    for text in (format_table([row(1.0)]), format_html([row(1.0)], ONE_SEED)):
        assert "one seed: no spread" in text
        assert "1.0 ±" not in text


class Checker(HTMLParser):
    """Collects ids, and fails on tags that are not closed in order."""

    EMPTY = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens a tag."""
        self.ids += [value for name, value in attrs if name == "id" and value]
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                assert value
                assert value.startswith("#")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens and closes a tag."""
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Closes the tag that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collects text."""
        self.text += data


def test_the_page_is_well_formed_and_needs_no_other_file() -> None:
    page = format_html([row(1.0, 1.2), row(0.0, 0.1, id="other", plot=lambda _: ())], INFO)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert {"a_claim", "other"} <= set(checker.ids)
    for text in (CLAIM.statement, "1 reproduced, 1 not reproduced", "a machine", "1 & 2", "quick"):
        assert text in checker.text
    assert page.count("<svg") == len(PLOTS)


def test_a_page_without_rows_is_well_formed() -> None:
    checker = Checker()
    checker.feed(format_html([], INFO))
    assert checker.open == []


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.kind)
def test_a_plot_is_an_svg_in_the_page_s_colours(plot: Plot) -> None:
    svg = format_plot(plot)
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert root.attrib["aria-label"] == plot.title
    assert "a < b" in "".join(root.itertext())
    assert "var(--series-1)" in svg
    assert "var(--ink)" in svg
    assert not any(colour in svg for colour in ("#010203", "#0a0b01", "#000000", "black"))
    assert format_plot(plot) == svg


def test_too_many_series_raise() -> None:
    series = tuple(Series(name=str(k), y=(1.0, 1.0), spread=(0.0, 0.0)) for k in range(8))
    plot = dataclasses.replace(PLOTS[0], panels=(Panel(title="", series=series),))
    with pytest.raises(ValueError, match="at most 7 series: got 8"):
        format_plot(plot)


def test_a_number_that_is_not_finite_is_reported() -> None:
    failed = row(math.nan, 1.0)
    assert "nan" in format_table([failed])
    assert "nan" in format_html([failed], INFO)
    content = format_json([failed], INFO)
    assert json.loads(content)["rows"][0]["estimates"] == {"score": {"mean": None, "spread": None}}
    assert "NaN" not in content


def test_json_holds_every_number() -> None:
    content = json.loads(format_json([row(1.0, 1.2)], INFO))
    assert content["run"]["seeds"] == [0, 1]
    saved = content["rows"][0]
    assert saved["estimates"]["score"]["mean"] == pytest.approx(1.1)
    assert saved["verdict"] == "reproduced"
    assert "plots" not in saved
    assert content["run"]["command"] == "lmcore reproduce --seeds 2"
    assert content["run"]["size"] == "quick"


TEXTS = {"pair <1>": {"5 steps": "a & b", "20 steps": ""}}


def test_texts_to_read_are_those_of_the_first_seed() -> None:
    runs = [Measurement(values={"score": 1.0}, texts=texts) for texts in (TEXTS, {})]
    claim = dataclasses.replace(CLAIM, read_original=lambda name: {"source": f"of <{name}>"})
    found = make_row(claim, runs, range(2), 1.0)
    assert found.texts == TEXTS
    page = format_html([found], INFO)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "<h3>pair &lt;1&gt;</h3>" in page
    source = "<dt>source</dt><dd>of &lt;pair &lt;1&gt;&gt;</dd>"
    assert f"{source}<dt>5 steps</dt><dd>a &amp; b</dd>" in page
    # What they were made of belongs to others, and is in no file that is passed on.
    content = format_json([found], INFO)
    assert json.loads(content)["rows"][0]["texts"] == TEXTS
    assert "source" not in json.loads(content)["rows"][0]["texts"]["pair <1>"]
    assert "of <" not in content
    assert "of &lt;" not in format_html([make_row(CLAIM, runs, range(2), 1.0)], INFO)
    # What has none is written as before there were any.
    assert "Texts to read" not in format_html([row(1.0, 1.2)], INFO)
    assert "texts" not in json.loads(format_json([row(1.0, 1.2)], INFO))["rows"][0]


NOT_RUN = make_absent_row(
    dataclasses.replace(CLAIM, id="other", statement="Something <else>."), "needs a GPU & luck"
)


def test_what_was_not_run_is_shown_with_its_reason() -> None:
    rows = [NOT_RUN, row(1.0, 1.2)]
    lines = format_table(rows, 100).splitlines()
    (at,) = (k for k, line in enumerate(lines) if line.startswith("other"))
    assert lines[at].endswith("not run")
    assert lines[at].index("not run") == lines[0].index("verdict")
    assert "needs a GPU & luck" in "\n".join(lines[at:])
    assert at > max(k for k, line in enumerate(lines) if line.startswith("a_claim"))
    assert "2 seeds" in lines[-1]

    page = format_html(rows, INFO)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "needs a GPU & luck" in checker.text
    assert "1 reproduced, 1 not run" in checker.text
    assert checker.ids.count("a_claim") == 1
    assert "other" not in checker.ids

    (saved, _) = json.loads(format_json(rows, INFO))["rows"]
    assert (saved["verdict"], saved["reason"]) == ("not run", "needs a GPU & luck")


def test_a_report_of_nothing_but_that() -> None:
    text = format_table([NOT_RUN], 100)
    assert "seeds" not in text
    assert "needs a GPU" in text
    format_html([NOT_RUN], INFO)
    assert count_verdicts([NOT_RUN]) == "1 not run"


@pytest.mark.parametrize("scores", [(1.0, 1.2), (0.0, 0.1), (1.0,)])
def test_colours_change_nothing_but_the_verdicts(scores: tuple[float, ...]) -> None:
    rows = [row(*scores), NOT_RUN]
    painted = format_table(rows, 100, colour=True)
    assert re.sub(r"\x1b\[[\d;]*m", "", painted) == format_table(rows, 100)
    assert len(re.findall(r"\x1b\[[\d;]+m[a-z ]+\x1b\[0m$", painted, re.MULTILINE)) == 2


def test_a_report_says_what_an_earlier_run_measured() -> None:
    rows = [dataclasses.replace(row(1.0, 1.2), kept=1), NOT_RUN]
    assert describe_kept(rows, "out").startswith("1 of 2 measurements were there already")
    assert "out/measurements" in describe_kept(rows, "out")
    assert "1 of 2 measurements are those of an earlier run" in format_html(rows, INFO)
    assert "of an earlier run" not in format_html([row(1.0)], INFO)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report([row(1.0, 1.2)], INFO, tmp_path)
    before = (tmp_path / "results.json").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report([row(0.0, 0.1)], INFO, tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", "results.json"]
