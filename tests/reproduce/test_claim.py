"""Claims, and the verdicts on them: each of these can fail."""

import dataclasses
import importlib
import math
import re
from collections import Counter
from pathlib import Path

import pytest

from claims import CLAIM, row
from lmcore.reproduce import CLAIMS
from lmcore.reproduce.claim import (
    SIZES,
    Claim,
    Estimate,
    Measurement,
    Size,
    estimate,
    make_absent_row,
    make_row,
)
from lmcore.reproduce.compare import read_results
from lmcore.reproduce.conditions import find_missing
from lmcore.reproduce.plots import format_plot

ROOT = Path(__file__).resolve().parents[2]


def test_a_measurement_that_fails_the_rule_is_not_reproduced() -> None:
    assert row(1.0, 1.2).verdict == "reproduced"
    assert row(0.9, 1.0).verdict == "not reproduced"
    assert row(math.inf, 1.0).verdict == "not reproduced"
    assert row(math.nan, 1.0).verdict == "not reproduced"


def test_nothing_is_judged_without_a_rule_or_a_spread() -> None:
    assert row(1.0, 1.2, holds=None, expected="measured").verdict == "measured"
    assert row(1.0).verdict == "measured"
    assert row(0.0).verdict == "measured"


def test_tiny_samples_show_nothing() -> None:
    measurements = [Measurement(values={"score": score}) for score in (1.0, 1.2)]
    verdicts = [make_row(CLAIM, measurements, range(2), 1.0, size).verdict for size in SIZES]
    assert verdicts == ["measured", "reproduced", "reproduced"]


def test_a_claim_that_was_not_run_has_a_row_without_numbers() -> None:
    absent = make_absent_row(CLAIM, "needs a GPU: torch finds none")
    assert (absent.verdict, absent.reason) == ("not run", "needs a GPU: torch finds none")
    assert (absent.measured, absent.speed, absent.seeds, absent.plots) == ("", "", (), ())
    assert absent.estimates == {}
    assert (absent.id, absent.expected) == (CLAIM.id, CLAIM.expected)
    assert row(1.0).reason == ""


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


def test_a_claim_says_what_is_expected_of_it() -> None:
    fields = {field.name: getattr(CLAIM, field.name) for field in dataclasses.fields(CLAIM)}
    del fields["expected"]
    with pytest.raises(TypeError, match="expected"):
        Claim(**fields)
    with pytest.raises(ValueError, match="a_claim: a claim without a rule cannot be expected to "):
        dataclasses.replace(CLAIM, holds=None)
    with pytest.raises(ValueError, match="a claim with a rule cannot be expected to be measured"):
        dataclasses.replace(CLAIM, expected="measured")
    with pytest.raises(ValueError, match="a_claim: a claim cannot be expected to be not run"):
        dataclasses.replace(CLAIM, expected="not run")


@pytest.mark.parametrize(
    "need", ["gpu", "", "data:", "data:../x", "data:a/../x", "cuda:0", "data:a b", "package:"]
)
def test_a_need_is_one_that_can_be_looked_for(need: str) -> None:
    with pytest.raises(ValueError, match="a_claim: a need is cuda, data:NAME or package:NAME: got"):
        dataclasses.replace(CLAIM, needs=("cuda", need))


def test_a_package_is_looked_for_by_its_name() -> None:
    assert find_missing(["package:numpy"]) is None
    expected = "needs a package that is not here: pip install no-such-thing"
    assert find_missing(["package:no-such-thing"]) == expected


@pytest.mark.parametrize("sizes", [(), ("huge",), ("tiny", "")])
def test_sizes_exist(sizes: tuple[Size, ...]) -> None:
    with pytest.raises(ValueError, match="a_claim: sizes must be of tiny, quick, full"):
        dataclasses.replace(CLAIM, sizes=sizes)


def test_claims_stand_where_their_names_say() -> None:
    for claim in CLAIMS.values():
        package = importlib.import_module(f"lmcore.reproduce.{claim.system}")
        assert claim in package.CLAIMS
        files = {path.stem for path in Path(str(package.__file__)).parent.glob("*.py")}
        assert any(claim.id.startswith(name) for name in files), claim.id
        assert "tiny" in claim.sizes


def test_a_demo_makes_few_runs_of_a_system() -> None:
    """Claims of a group look at the same runs. GNER has two claims that take seconds, and one
    group of trained models as every system has."""
    quick = [claim for claim in CLAIMS.values() if "quick" in claim.sizes]
    trained = {(claim.system, claim.group) for claim in quick if claim.group}
    assert max(Counter(system for system, _ in trained).values()) == 1
    others = Counter(claim.system for claim in quick if not claim.group)
    assert max(others.values()) <= 2


RESULTS = sorted((ROOT / "docs" / "results").glob("*.json"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_committed_results_are_of_these_claims(file: Path) -> None:
    """They say how they were made, and no verdict among them is another than the documents'."""
    results = read_results(file)
    size = "quick" if file.stem.startswith("demo") else "full"
    assert results["run"]["size"] == size
    for saved in results["rows"]:
        claim = CLAIMS[saved["id"]]
        assert saved["verdict"] in (claim.expected, "not run"), claim.id
        assert (size in claim.sizes) or saved["verdict"] == "not run", claim.id
        assert saved["verdict"] == "not run" or len(saved["seeds"]) >= 3, claim.id


def test_what_no_demo_measures_has_a_committed_result() -> None:
    rows = [saved for file in RESULTS for saved in read_results(file)["rows"]]
    measured = {saved["id"] for saved in rows if saved["verdict"] != "not run"}
    assert measured == set(CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_each_claim_can_be_measured(claim: Claim) -> None:
    """Once, at the smallest size: numbers and pictures come out, whatever they say."""
    reason = find_missing(claim.needs)
    if reason is not None:
        pytest.skip(reason)
    found = make_row(claim, [claim.measure(0, "tiny")], range(1), 1.0, "tiny")
    assert found.verdict == "measured"
    assert found.measured
    for plot in found.plots:
        assert format_plot(plot).startswith("<svg")


def claim_rows(document: str) -> list[list[str]]:
    """The cells of the rows of a document's table of claims, but for those of hours.

    `tests/reproduce/test_arms_on_files.py` has these.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    table = text.partition("<!-- table:claims -->")[2].partition("<!-- /table:claims -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[3:]]
    return [row for row in rows if not row[0].startswith(("UFNRec on Beauty", "UFNRec on Sports"))]


def test_documented_verdicts_are_those_of_the_claims() -> None:
    stated = [row[-1] for row in claim_rows("docs/claims.md")]
    assert sorted(stated) == sorted(claim.expected for claim in CLAIMS.values())


def test_the_readme_has_the_claims_of_a_demo() -> None:
    stated = [row[-1] for row in claim_rows("README.md")]
    quick = [claim for claim in CLAIMS.values() if "quick" in claim.sizes]
    assert sorted(stated) == sorted(claim.expected for claim in quick)


def test_claims_of_the_readme_are_those_of_the_docs() -> None:
    """A row of the README is a shorter one of docs/claims.md, with the same numbers."""
    long = claim_rows("docs/claims.md")
    for name, measured, verdict in claim_rows("README.md"):
        _, _, everything, same = next(row for row in long if row[0].startswith(name))
        assert verdict == same
        numbers = re.findall(r"[-+]?\d+\.\d+(?: ± \d+\.\d+)?", measured)
        assert numbers
        assert [number for number in numbers if number not in everything] == []
