"""Mixtures: shares that are exact, draws that need no state, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmcore.openba.mixture import Mixture, MixtureDraws, MixtureSource, read_mixture

PAPER = {"english": 47.5, "chinese": 47.5, "code": 5}


def make(**weights: float) -> Mixture:
    return Mixture(
        sources=tuple(MixtureSource(name=n, data=n, weight=w) for n, w in weights.items())
    )


@pytest.mark.parametrize(
    "weights",
    [PAPER, {"english": 57, "chinese": 43}, {"a": 1}, {"a": 1, "b": 1, "c": 1},
     {"a": 1e-5, "b": 1, "c": 0.1}, {f"s{n}": n + 0.1 for n in range(40)}],
)  # fmt: skip
def test_after_each_block_counts_are_within_one_of_their_shares(weights: dict[str, float]) -> None:
    draws = MixtureDraws(make(**weights), seed=3)
    shares = np.array([*weights.values()]) / sum(weights.values())
    counts = np.zeros(len(weights))
    for block in range(12):
        indices = np.arange(block * draws.block, (block + 1) * draws.block)
        sources, _ = draws.draw(indices)
        found = np.bincount(sources, minlength=len(weights))
        counts += found
        assert (np.abs(counts - (block + 1) * draws.block * shares) < 1 + 1e-6).all()
        if draws.block == 1024:
            assert found.min() > 0 or shares.min() * 1024 < 1
    assert (draws.count(12 * draws.block) == counts).all()


def test_the_papers_shares_are_exact() -> None:
    sources, _ = MixtureDraws(make(**PAPER), seed=0).draw(np.arange(1024 * 40))
    assert np.bincount(sources).tolist() == [19_456, 19_456, 2_048]


def test_the_samples_of_a_source_are_numbered_without_gaps() -> None:
    draws = MixtureDraws(make(**PAPER), seed=1)
    sources, numbers = draws.draw(np.arange(5000))
    for source in range(3):
        own = numbers[sources == source]
        assert own.tolist() == list(range(len(own)))


def test_draws_have_no_state() -> None:
    """Any indices, in any order and by any object, give what they give in a row."""
    whole = MixtureDraws(make(**PAPER), seed=1).draw(np.arange(6000))
    picked = np.random.default_rng(0).permutation(6000)[:500]
    draws = MixtureDraws(make(**PAPER), seed=1)
    for one, other in zip(whole, draws.draw(picked), strict=True):
        assert (one[picked] == other).all()
    far = np.array([10**15 + 7, 3, 2**40])
    assert draws.draw(far)[0].tolist() == MixtureDraws(make(**PAPER), 1).draw(far)[0].tolist()
    assert MixtureDraws(make(**PAPER), 2).draw(np.arange(6000))[0].tolist() != whole[0].tolist()


def test_sources_take_turns_at_random() -> None:
    """Within a block neighbours do not tell of each other (a chi-square of 2 x 2 counts)."""
    sources, _ = MixtureDraws(make(a=1, b=1), seed=5).draw(np.arange(1024 * 20))
    table = np.zeros((2, 2))
    np.add.at(table, (sources[:-1], sources[1:]), 1)
    expected = len(sources) / 4
    assert ((table - expected) ** 2 / expected).sum() < 15


def test_sources_have_seeds_of_their_own() -> None:
    draws = MixtureDraws(make(a=1, b=1), seed=5)
    assert len({5, draws.seed_source(0), draws.seed_source(1)}) == 3


def test_names_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "mix").mkdir()
    file = tmp_path / "mix" / "mixture.json"
    content = {"sources": [
        {"name": "en", "data": "../english", "weight": 47.5},
        {"name": "zh", "data": str(tmp_path / "chinese"), "weight": 52.5},
    ]}  # fmt: skip
    file.write_text(json.dumps(content))
    found = read_mixture(file)
    assert [source.data for source in found.sources] == [
        str(tmp_path / "mix" / "../english"), str(tmp_path / "chinese"),
    ]  # fmt: skip
    assert found.shares == {"en": 0.475, "zh": 0.525}


def source(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "data": "a", "weight": 1, **changes}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "not a mixture: Expecting value"),
        ("[]", "not a mixture: it must hold sources, and nothing else"),
        ('{"sources": [], "seed": 1}', "not a mixture: it must hold sources, and nothing else"),
        ('{"sources": [], "sources": []}', "not a mixture: the key 'sources' stands twice"),
        ('{"sources": {}}', "sources must be a list"),
        ('{"sources": []}', "sources must not be empty"),
        ('{"sources": [1]}', r"sources\[0\] must hold name, data, weight, and nothing else"),
        ([source(more=1)], r"sources\[0\] must hold name, data, weight, and nothing else"),
        ([source(), source()], "sources must have names of their own: 'a' comes twice"),
        ([source(weight=0)], r"sources\[0\]: weight must be above 0 and finite: got 0"),
        ([source(), source(name="b", weight=-1)], r"sources\[1\]: weight must be above .*: got -1"),
        ([source(weight=10**400)], "weight must be above 0 and finite: got 1000"),
        ([source(weight="1")], "weight must be a number: got '1'"),
        ([source(weight=True)], "weight must be a number: got True"),
        ([source(weight=None)], "weight must be a number: got None"),
        ('{"sources": [{"name": "a", "data": "a", "weight": NaN}]}', "NaN is no number of JSON"),
        ('{"sources": [{"name": "a", "data": "a", "weight": 1e400}]}', "1e400 is too large"),
        ([source(name="")], "name must be 1 to 64 letters, digits"),
        ([source(name="a\u001b[31m")], r"name must be .*: got 'a\\x1b\[31m'"),
        ([source(name=3)], "name must be .*: got 3"),
        ([source(data="")], "data must be the prefix of a token file: got ''"),
        ([source(data="a\0b")], "data must be the prefix of a token file"),
        ([source(data=["a"])], "data must be the prefix of a token file"),
        ('{"sources": [{"name": "a", "data": "\\ud800", "weight": 1}]}', "data must be the prefix"),
        ([source(), source(name="b", weight=1e-9)], "share of a source must be at least 1 in 1048"),
        ("[" * 200_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_no_mixture_is_named(content: Any, text: str, tmp_path: Path) -> None:
    file = tmp_path / "mixture.json"
    text_of = content if isinstance(content, str) else json.dumps({"sources": content})
    file.write_text(text_of, encoding="utf-8")
    with pytest.raises(ValueError, match=text) as caught:
        read_mixture(file)
    assert str(caught.value).startswith(str(file))


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_mixture(tmp_path / "none.json")
