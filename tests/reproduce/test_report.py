"""`reproduce`: verdicts can fail, and the report says what was measured."""

import dataclasses
import json
import math
import re
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from lmcore.cli import app
from lmcore.reproduce import CLAIMS, matching_rescue, matching_speed, report, reproduce
from lmcore.reproduce.claim import (
    Claim,
    Estimate,
    Measurement,
    Panel,
    Plot,
    ResultRow,
    Series,
    Verdict,
    decide_verdict,
    estimate,
    make_row,
)
from lmcore.reproduce.report import RunInfo, format_html, format_json, format_plot, format_table
from lmcore.reproduce.run import CLAIMS as RUN_CLAIMS

ROOT = Path(__file__).resolve().parents[2]
INFO = RunInfo(
    seeds=(0, 1),
    quick=True,
    versions={"lmcore": "0", "<b>": "1 & 2"},
    device="a machine",
    started="2024-01-01 00:00:00+00:00",
)
ONE_SEED = dataclasses.replace(INFO, seeds=(0,))
PLOTS = tuple(
    Plot(
        title=f"Scores & {kind}",
        kind=kind,
        x_label="x",
        y_label="y",
        x=("1", "2"),
        panels=(
            Panel(
                title="left",
                series=(
                    Series(name="a < b", y=(1.0, 2.0), spread=(0.1, 0.0)),
                    Series(name="c", y=(2.0, 1.5), spread=(0.0, 0.0), reference=True),
                ),
            ),
        ),
        logarithmic=kind == "bars",
    )
    for kind in ("lines", "bars")
)
CLAIM = Claim(
    id="a_claim",
    system="ner",
    statement="A statement that is long enough to be wrapped, with <angle> brackets & more.",
    source="a paper",
    paper="1.0",
    setting="as it is",
    measure=lambda seed, quick: Measurement(values={"score": seed + quick}),
    describe=lambda estimates: f"{estimates['score'].format()}\nsecond line",
    rule="The score is at least 1.",
    expected="reproduced",
    holds=lambda estimates: estimates["score"].mean >= 1.0,
    describe_speed=lambda _: "twice as fast as before",
    plot=lambda _: PLOTS,
)


def row(*scores: float, **changes: Any) -> ResultRow:
    claim = dataclasses.replace(CLAIM, **changes)
    measurements = [Measurement(values={"score": score}) for score in scores]
    return make_row(claim, measurements, range(len(scores)), seconds=1.5)


def test_a_measurement_that_fails_the_rule_is_not_reproduced() -> None:
    assert row(1.0, 1.2).verdict == "reproduced"
    assert row(0.9, 1.0).verdict == "not reproduced"
    assert row(math.inf, 1.0).verdict == "not reproduced"
    assert row(math.nan, 1.0).verdict == "not reproduced"


def test_nothing_is_judged_without_a_rule_or_a_spread() -> None:
    assert row(1.0, 1.2, holds=None, expected="measured").verdict == "measured"
    assert row(1.0).verdict == "measured"
    assert row(0.0).verdict == "measured"


def estimates_of(values: Mapping[str, float], spread: float = 0.0) -> dict[str, Estimate]:
    return {name: Estimate(mean=value, spread=spread) for name, value in values.items()}


GAINS = {
    f"gain/{mix}/{method}": gain
    for mix in ("LLaMA", "T5")
    for method, gain in (("positions", 1.0), ("subsequence", 5.0), ("truth", -0.01))
}


@pytest.mark.parametrize(
    ("change", "spread", "verdict"),
    [
        ({}, 0.1, "reproduced"),
        ({}, 0.5, "not reproduced"),
        ({"gain/T5/positions": -0.2}, 0.1, "not reproduced"),
        ({"gain/LLaMA/subsequence": 0.1}, 0.1, "not reproduced"),
        ({"gain/T5/truth": -0.2}, 0.0, "not reproduced"),
        ({"gain/T5/truth": math.nan}, 0.0, "not reproduced"),
    ],
)
def test_matching_rescue_can_fail(change: dict[str, float], spread: float, verdict: str) -> None:
    estimates = estimates_of(GAINS | change, spread)
    assert decide_verdict(CLAIMS["matching_rescue"], estimates, seed_count=3) == verdict


SPEEDUPS = {
    **{f"{band}/lcs_python": 7.0 for band in ("0-60", "60-100", "100-200")},
    **{f"{band}/matching_python": 18.0 for band in ("0-60", "60-100", "100-200")},
}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "reproduced"),
        ({"100-200/lcs_python": 6.0}, "not reproduced"),
        ({"60-100/matching_python": 12.5}, "not reproduced"),
    ],
)
def test_matching_speed_can_fail(change: dict[str, float], verdict: str) -> None:
    estimates = estimates_of(SPEEDUPS | change)
    assert decide_verdict(CLAIMS["matching_speed"], estimates, seed_count=3) == verdict


def test_estimates_are_means_with_sample_deviations() -> None:
    runs = [Measurement(values={"a": value, "b": 1.0}) for value in (1.0, 2.0, 3.0)]
    assert estimate(runs) == {
        "a": Estimate(mean=2.0, spread=1.0),
        "b": Estimate(mean=1.0, spread=0),
    }
    alone = estimate(runs[:1])["a"]
    assert alone.mean == 1.0
    assert math.isnan(alone.spread)
    assert alone.format() == "1.0"
    with pytest.raises(ValueError, match="at least one"):
        estimate([])
    with pytest.raises(ValueError, match=r"measurements\[1\] must have the names .*\['b'\]"):
        estimate([runs[0], Measurement(values={"a": 1.0})])
    with pytest.raises(ValueError, match="got 1 and 2"):
        make_row(CLAIM, [Measurement(values={"score": 1.0})], range(2), seconds=0.0)


def test_a_vanishing_mean_has_no_minus_sign() -> None:
    assert Estimate(mean=-1e-9, spread=0.0).format(2, sign=True) == "+0.00 ± 0.00"


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


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "lmcore-research\[report\]"'):
        reproduce(["matching_rescue"], out=tmp_path / "report", progress=False)
    assert not (tmp_path / "report").exists()


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
    assert saved["plots"][0]["panels"][0]["series"][0]["y"] == [1.0, 2.0]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report.write_report([row(1.0, 1.2)], INFO, tmp_path)
    before = (tmp_path / "results.json").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write_report([row(0.0, 0.1)], INFO, tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", "results.json"]


@pytest.fixture
def fake_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> Measurement:
        raise RuntimeError("out of order")

    monkeypatch.setitem(RUN_CLAIMS, "a_claim", CLAIM)
    broken = dataclasses.replace(CLAIM, id="broken", measure=break_down)
    monkeypatch.setitem(RUN_CLAIMS, "broken", broken)


@pytest.mark.usefixtures("fake_claims")
def test_a_run_measures_every_seed_and_writes_the_report(tmp_path: Path) -> None:
    (result,) = reproduce(["a_claim", "a_claim"], seeds=3, out=tmp_path / "new", progress=False)
    assert result.estimates == {"score": Estimate(mean=2.0, spread=1.0)}
    assert result.seeds == (0, 1, 2)
    assert result.verdict == "reproduced"
    files = sorted(file.name for file in (tmp_path / "new").iterdir())
    assert files == ["index.html", "results.json"]


@pytest.mark.usefixtures("fake_claims")
def test_a_run_that_breaks_leaves_the_claims_it_finished(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of order"):
        reproduce(["a_claim", "broken"], seeds=2, out=tmp_path, progress=False)
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [saved["id"] for saved in rows] == ["a_claim"]


def test_unknown_claims_and_seed_counts_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got bogus; known are ner, recsys, matching_rescue, "):
        reproduce(["bogus", "matching_speed"], out=tmp_path)
    with pytest.raises(ValueError, match="seeds must be at least 1: got 0"):
        reproduce([], seeds=0, out=tmp_path)


def test_claims_are_named_after_their_module() -> None:
    for module in (matching_rescue, matching_speed):
        for claim in module.CLAIMS:
            assert claim.id.startswith(module.__name__.rpartition(".")[2])
            assert CLAIMS[claim.id] is claim


@pytest.mark.parametrize(
    ("a", "b", "alignment"),
    [
        ("a b c", "", [-1, -1, -1]),
        ("a a b", "a b", [-1, 0, 1]),
        ("a b b a", "b a a b", [-1, -1, 0, 2]),
    ],
)
@pytest.mark.parametrize("tuned", [False, True])
def test_the_dynamic_programme_breaks_ties_as_the_paper_s(
    a: str, b: str, alignment: list[int], tuned: bool
) -> None:
    found = matching_speed.align_by_dynamic_programme(a.split(), b.split(), tuned=tuned)
    assert found == alignment


def test_a_disagreement_is_reported_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matching_speed, "align_words", lambda a, _: ("lcs", [-1] * len(a)))
    with pytest.raises(RuntimeError, match="align_words and its definition disagree"):
        matching_speed.measure_speed(seed=0, quick=True)


@pytest.mark.parametrize(
    ("verdict", "expected", "code"),
    [
        ("reproduced", "reproduced", 0),
        ("not reproduced", "not reproduced", 0),
        ("measured", "measured", 0),
        ("measured", "reproduced", 1),
        ("not reproduced", "reproduced", 1),
        ("reproduced", "not reproduced", 1),
    ],
)
def test_strict_holds_a_run_to_the_documented_verdicts(
    monkeypatch: pytest.MonkeyPatch, verdict: Verdict, expected: Verdict, code: int
) -> None:
    rows = [dataclasses.replace(row(1.0, 1.2), verdict=verdict, expected=expected)]
    monkeypatch.setattr("lmcore.reproduce.reproduce", lambda *_, **__: rows)
    assert CliRunner().invoke(app, ["reproduce", "--strict"]).exit_code == code
    assert CliRunner().invoke(app, ["reproduce"]).exit_code == 0


def test_strict_needs_a_spread(tmp_path: Path) -> None:
    """One seed gives no verdict, so that nothing could be held to the documented one."""
    arguments = ["reproduce", "--strict", "--seeds", "1", "--out", str(tmp_path / "report")]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "lmcore: --strict needs --seeds 2 or more, for a verdict: got 1\n"
    assert not (tmp_path / "report").exists()


def test_a_claim_says_what_is_expected_of_it() -> None:
    fields = {field.name: getattr(CLAIM, field.name) for field in dataclasses.fields(CLAIM)}
    del fields["expected"]
    with pytest.raises(TypeError, match="expected"):
        Claim(**fields)
    with pytest.raises(ValueError, match="a_claim: a claim without a rule cannot be expected to "):
        dataclasses.replace(CLAIM, holds=None)
    with pytest.raises(ValueError, match="a claim with a rule cannot be expected to be measured"):
        dataclasses.replace(CLAIM, expected="measured")


def claim_rows(document: str) -> list[list[str]]:
    """The cells of the rows of a document's table of claims."""
    text = (ROOT / document).read_text(encoding="utf-8")
    table = text.partition("<!-- table:claims -->")[2].partition("<!-- /table:claims -->")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[3:]]


@pytest.mark.parametrize("document", ["README.md", "docs/claims.md"])
def test_documented_verdicts_are_those_of_the_claims(document: str) -> None:
    stated = [row[-1] for row in claim_rows(document)]
    assert sorted(stated) == sorted(claim.expected for claim in CLAIMS.values())


def test_claims_of_the_readme_are_those_of_the_docs() -> None:
    """A row of the README is a shorter one of docs/claims.md, with the same numbers."""
    short, long = claim_rows("README.md"), claim_rows("docs/claims.md")
    for (name, measured, verdict), (full, _, everything, same) in zip(short, long, strict=True):
        assert full.startswith(name)
        assert verdict == same
        numbers = re.findall(r"[-+]?\d+\.\d+(?: ± \d+\.\d+)?", measured)
        assert numbers
        assert [number for number in numbers if number not in everything] == []
