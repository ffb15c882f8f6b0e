"""`ops.schedule`: the authors' betas, kept timesteps and coefficients, and laws of schedules.

What is drawn for a batch stands in `test_timestep_draws.py`.
"""

import contextlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmcore.ops.schedule import (
    ADAPTIVE_DECAY,
    SCHEDULES,
    Coefficients,
    NoiseNeighbours,
    adaptive_timesteps,
    find_neighbours,
    make_betas,
    make_coefficients,
    order_timesteps,
    shift_timesteps,
    space_betas,
    space_timesteps,
)
from lmcore.reference import schedule as reference
from parity import agree

NAMES = list(SCHEDULES)
FIELDS = [name for name in Coefficients.__slots__ if name != "total"]
NAN, INFINITE = float("nan"), float("inf")


def largest_difference(got: Any, expected: Any) -> float:
    """The largest one in proportion to what was expected; equal infinities do not differ."""
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    assert got.shape == expected.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.abs(got - expected) / np.abs(expected)
    return float(np.where(got == expected, 0, share).max(initial=0))


def level(betas: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(1 - np.cumprod(1 - betas))


# The authors' values.


@pytest.mark.parametrize("name", NAMES)
def test_betas_are_the_authors(golden_dir: Path, name: str) -> None:
    with np.load(golden_dir / "diffusion/betas.npz") as arrays:
        cases = {key: arrays[key] for key in arrays if key.rpartition("_")[0] == name}
    assert {key.rpartition("_")[2] for key in cases} == {"50", "1000", "2000"}
    for key, expected in cases.items():
        steps = int(key.rpartition("_")[2])
        assert largest_difference(make_betas(name, steps), expected) <= 1e-12
        assert largest_difference(reference.make_betas(name, steps), expected) <= 1e-12


def test_kept_timesteps_are_the_authors(golden_dir: Path) -> None:
    cases = json.loads((golden_dir / "diffusion/space_timesteps.json").read_text())
    assert len(cases) == 63
    for key, expected in cases.items():
        total, spec = key.split("|")
        given = json.loads(f"[{spec.strip('(,)')}]") if spec[0] == "(" else spec
        specs = (
            [given, tuple(given), str(given)[1:-1].replace(" ", "")] if spec[0] == "(" else [spec]
        )
        for kind in specs:
            if expected == "ValueError":
                with pytest.raises(ValueError, match=r"\d"):
                    space_timesteps(int(total), kind)
            else:
                assert space_timesteps(int(total), kind).tolist() == expected, key


def test_coefficients_are_the_authors(golden_dir: Path) -> None:
    with np.load(golden_dir / "diffusion/spaced.npz") as arrays:
        cases = dict(arrays)
    seen = set()
    for key, expected in cases.items():
        name, total, spec, field = key.split("|")
        betas = make_betas(name, int(total))
        kept = space_timesteps(int(total), spec)
        spaced = make_coefficients(betas, kept)
        seen.add(field)
        if field == "timestep_map":
            assert spaced.timesteps.tolist() == expected.tolist()
            continue
        assert largest_difference(getattr(spaced, field), expected) <= 1e-9, key
        if field == "betas":
            assert largest_difference(space_betas(betas, kept[::-1]), expected) <= 1e-9
    assert len(cases) == 220
    assert len(seen) == 10


def test_neighbours_are_the_authors(golden_dir: Path) -> None:
    cases = json.loads((golden_dir / "diffusion/noise_maps.json").read_text())
    assert len(cases) == 18
    for key, expected in cases.items():
        name, total, tolerance = key.split("|")
        found = find_neighbours(make_betas(name, int(total)), float(tolerance))
        for direction, mine in zip(("up", "down"), found, strict=True):
            known = {str(t): int(u) for t, u in enumerate(mine) if u != -1}
            assert known == expected[direction], key


# Laws of schedules and kept timesteps.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 20, 21, 22, 333, 9999, 10_000])
def test_betas_agree_and_are_above_0_and_below_1(name: str, steps: int) -> None:
    least, most = SCHEDULES[name]
    if not least <= steps <= most:
        agree(reference.make_betas, make_betas, name, steps)
        return
    betas = make_betas(name, steps)
    assert betas.shape == (steps,)
    assert ((betas > 0) & (betas < 1)).all()
    assert largest_difference(betas, reference.make_betas(name, steps)) <= 1e-12


def test_products_of_ratios_are_those_of_their_function() -> None:
    u = np.arange(1, 1001) / 1000
    products = np.cumprod(1 - make_betas("sqrt", 1000))[:-1]
    assert largest_difference(products, ((1 - np.sqrt(u + 1e-4)) / 0.99)[:-1]) < 1e-9


@given(st.sampled_from([1, 2, 3, 7, 50, 1000]), st.integers(1, 60))
def test_from_four_steps_on_adaptive_timesteps_are_those_of_adp(total: int, steps: int) -> None:
    def spaced(total: int, steps: int) -> list[int] | None:
        try:
            return space_timesteps(total, f"adp_{steps}").tolist()[::-1]
        except ValueError:
            return None

    try:
        mine = adaptive_timesteps(total, steps)
    except ValueError:
        mine = None
    if steps >= 4:
        assert mine == spaced(total, steps)
    elif mine is not None and total > 3:
        assert mine[0] == total - 1
        # The authors lose the last timestep.
        assert total - 1 not in space_timesteps(total, f"adp_{steps}")


@given(
    st.integers(1, 400),
    st.integers(1, 40),
    st.lists(st.integers(0, 5), min_size=1, max_size=7).filter(any),
)
def test_adaptive_timesteps_are_as_many_as_asked_for(
    total: int, steps: int, shares: list[int]
) -> None:
    proportions = [share / sum(shares) for share in shares]
    if max(steps, len(shares)) > total:
        with pytest.raises(ValueError, match=" and at most "):
            adaptive_timesteps(total, steps, proportions)
        return
    with contextlib.suppress(ValueError):
        kept = adaptive_timesteps(total, steps, proportions)
        check_sections(kept, total, steps, proportions)


def check_sections(kept: list[int], total: int, steps: int, proportions: list[float]) -> None:
    """Asserts that there are as many timesteps, and that each section has its share."""
    sections = len(proportions)
    assert type(kept) is list
    assert {type(t) for t in kept} == {int}
    assert len(kept) == steps
    assert kept[0] == total - 1
    assert all(before > after >= 0 for before, after in pairwise(kept))
    # Each section has its share, or one step where it has too little for one.
    starts = np.cumsum([0, *(total // sections + (k < total % sections) for k in range(sections))])
    counts = np.bincount(np.searchsorted(starts, kept, "right") - 1, minlength=sections)
    wished = [max(round(share * steps), 1) for share in proportions[:-1]]
    if sum(wished) < steps:
        assert counts[:-1].tolist() == wished
    assert counts[-1] >= 1


def test_few_adaptive_timesteps_begin_at_the_last_where_the_authors_lose_it() -> None:
    mine = [adaptive_timesteps(2000, steps) for steps in (1, 2, 3, 4)]
    assert mine == [[1999], [1999, 667], [1999, 667, 0], [1999, 1334, 667, 0]]
    authors = [space_timesteps(2000, f"adp_{steps}").tolist() for steps in (1, 2, 3, 4)]
    assert authors == [[0, 667], [0, 667], [0, 667, 1334], [0, 667, 1334, 1999]]
    # With too few steps for all sections, those of the least share go without.
    assert adaptive_timesteps(8, 2, [0.5, 0.1, 0.2, 0.2]) == [7, 0]


def test_one_section_is_uniform() -> None:
    uniform = space_timesteps(2000, [20])
    assert adaptive_timesteps(2000, 20, [1.0]) == uniform.tolist()[::-1]
    assert space_timesteps(2000, "20").tolist() == uniform.tolist()
    assert adaptive_timesteps(20, 20, [1]) == list(range(20))[::-1]


@given(st.integers(1, 60), st.data())
def test_all_timesteps_kept_change_nothing(total: int, data: st.DataObject) -> None:
    betas = np.array(data.draw(st.lists(st.floats(0.001, 0.9), min_size=total, max_size=total)))
    order = data.draw(st.permutations(range(total)))
    whole, spaced = make_coefficients(betas), make_coefficients(betas, order)
    assert whole.total == spaced.total == total
    for name in FIELDS:
        assert largest_difference(getattr(spaced, name), getattr(whole, name)) < 1e-7, name


@given(st.integers(1, 40), st.data())
def test_coefficients_agree_and_keep_their_laws(total: int, data: st.DataObject) -> None:
    betas = data.draw(st.lists(st.floats(0.001, 0.3), min_size=total, max_size=total))
    kept = data.draw(st.none() | st.sets(st.integers(0, total - 1), min_size=1).map(list))
    mine, theirs = make_coefficients(betas, kept), reference.make_coefficients(betas, kept)
    for name in FIELDS:
        got, expected = getattr(mine, name), getattr(theirs, name)
        assert got.dtype == expected.dtype
        assert largest_difference(got, expected) < 1e-13, name
    products = np.cumprod(1 - np.array(betas))[mine.timesteps]
    assert largest_difference(mine.alphas_cumprod, products) < 1e-7
    # x_0 alone is the mean at the first step, and a latent without noise stays one.
    assert abs(mine.posterior_mean_coef1[0] - 1) < 1e-9
    assert mine.posterior_mean_coef2[0] == mine.posterior_variance[0] == 0
    clean = mine.posterior_mean_coef1 + mine.posterior_mean_coef2 * mine.sqrt_alphas_cumprod
    assert largest_difference(clean, np.sqrt(mine.alphas_cumprod_prev)) < 1e-7
    assert np.isfinite(mine.posterior_log_variance_clipped).all()
    assert mine.fixed_large_variance[1:].tolist() == mine.betas[1:].tolist()
    first = mine.posterior_variance[1] if len(mine.betas) > 1 else mine.betas[0]
    assert mine.fixed_large_variance[0] == first
    assert np.exp(mine.posterior_log_variance_clipped[0]) == pytest.approx(first)
    with pytest.raises(AttributeError):
        mine.total = 3  # type: ignore[misc]


@given(
    st.lists(st.floats(1e-6, 0.6), min_size=1, max_size=40),
    st.floats(1e-4, 1.0) | st.sampled_from([0.0, -0.05, NAN, INFINITE, 5e-324]),
)
def test_neighbours_agree_and_are_of_similar_noise(betas: list[float], tolerance: float) -> None:
    def op(betas: list[float], tolerance: float) -> tuple[list[int], list[int]]:
        up, down = find_neighbours(betas, tolerance)
        assert (up.dtype, down.dtype) == (np.int64, np.int64)
        return up.tolist(), down.tolist()

    found = agree(reference.find_neighbours, op, betas, tolerance)
    if isinstance(found, Exception):
        return
    s = level(np.array(betas))
    for t, (u, d) in enumerate(zip(*found, strict=True)):
        assert u == -1 or s[u] - s[t] <= tolerance < s[u + 1] - s[t]
        assert d == -1 or s[t] - s[d] <= tolerance < s[t] - s[d - 1]
        assert (u == -1) == (s[-1] - s[t] <= tolerance)
        assert (d == -1) == (s[t] - s[0] <= tolerance)


# What others make of them.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own calls of numpy
def test_schedulers_of_diffusers_take_adaptive_timesteps() -> None:
    diffusers = pytest.importorskip("diffusers")
    betas = make_betas("sqrt", 2000)
    settings = {"num_train_timesteps": 2000, "trained_betas": betas, "prediction_type": "sample"}
    for steps in (1, 2, 3, 5, 20):
        kept = adaptive_timesteps(2000, steps)
        for name in ("DDPMScheduler", "DPMSolverMultistepScheduler"):
            scheduler = getattr(diffusers, name)(**settings)
            scheduler.set_timesteps(timesteps=kept)
            assert scheduler.timesteps.tolist() == kept
    # Ascending ones are refused by the first, and kept in silence by the second.
    with pytest.raises(ValueError, match="descending"):
        diffusers.DDPMScheduler(**settings).set_timesteps(timesteps=kept[::-1])
    scheduler = diffusers.DPMSolverMultistepScheduler(**settings)
    scheduler.set_timesteps(timesteps=kept[::-1])
    assert scheduler.timesteps.tolist() == kept[::-1]


# Bad input.

PROBLEMS: list[tuple[Any, type[Exception], str]] = [
    (lambda: make_betas("square", 9), ValueError, "name must be one of linear, cosine, sqrt, "),
    (lambda: make_betas("\x1b[2J\n", 9), ValueError, r"got '\\x1b\[2J\\n'$"),
    (lambda: make_betas("sqrt", 0), ValueError, "steps must be at least 1 and at most 9999: got"),
    (lambda: make_betas("linear", 20), ValueError, "steps must be at least 21 and at most "),
    (lambda: make_betas("sqrt", 2**63), ValueError, "steps must be at least 1 and at most "),
    (lambda: make_betas("sqrt", 2.0), TypeError, "steps must be an int: got float"),
    (lambda: space_timesteps(0, "adp_4"), ValueError, "total must be at least 1 and at most "),
    (lambda: space_timesteps(2**63, "adp_4"), ValueError, "total must be at least 1 and at most "),
    (lambda: space_timesteps(True, "adp_4"), TypeError, "total must be an int: got bool"),
    (lambda: space_timesteps(50, "adp_0"), ValueError, "N of adp_N must be at least 1 and at mo"),
    (lambda: space_timesteps(50, "adp_51"), ValueError, "N of adp_N must be .* most 50: got 51"),
    (lambda: space_timesteps(50, "x2_51"), ValueError, "N of x2_N must be .* most 50: got 51"),
    (lambda: space_timesteps(50, "ddim0"), ValueError, "N of ddimN must be at least 1 and at mo"),
    (lambda: space_timesteps(50, "ddim1"), ValueError, "spec must be ddimN of a stride that keeps"),
    (lambda: space_timesteps(50, "ddim40"), ValueError, "keeps N of 50: got N = 40$"),
    (lambda: space_timesteps(50, "adp_-4"), ValueError, "spec must be adp_N, x2_N, ddimN, or coun"),
    (lambda: space_timesteps(50, "adp_" + "9" * 5000), ValueError, "spec must be adp_N, x2_N, dd"),
    (lambda: space_timesteps(50, "adp_٣"), ValueError, "spec must be adp_N, x2_N, ddimN, or coun"),
    (lambda: space_timesteps(50, "\x1b\n"), ValueError, r"got '\\x1b\\n'$"),
    (lambda: space_timesteps(50, ""), ValueError, "spec must be adp_N, x2_N, ddimN, or counts of"),
    (lambda: space_timesteps(50, []), ValueError, "the length of spec must be at least 1 and at "),
    (lambda: space_timesteps(2, [1, 1, 1]), ValueError, "length of spec must .* most 2: got 3"),
    (lambda: space_timesteps(50, [0]), ValueError, r"spec\[0\] must be at least 1 and at most 50"),
    (lambda: space_timesteps(50, [2**63]), ValueError, r"spec\[0\] must be at least 1 and at most"),
    (lambda: space_timesteps(50, [20, 30]), ValueError, "section 1 has 25 timesteps: 30 points do"),
    (lambda: space_timesteps(50, [2.0]), TypeError, r"spec\[0\] must be an int: got float"),
    (lambda: adaptive_timesteps(50, 0), ValueError, "steps must be at least 1 and at most 50: go"),
    (lambda: adaptive_timesteps(50, 51), ValueError, "steps must be at least 1 and at most 50: g"),
    (lambda: adaptive_timesteps(50, 50), ValueError, "section 1 has 17 timesteps: 19 points do n"),
    (lambda: adaptive_timesteps(50, 2**63), ValueError, "steps must be at least 1 and at most 50"),
    (lambda: adaptive_timesteps(9, 2, []), ValueError, "the length of proportions must be at lea"),
    (lambda: adaptive_timesteps(9, 2, [0.5, 0.4]), ValueError, "proportions must be 1 in sum: got"),
    (lambda: adaptive_timesteps(9, 2, [NAN, 1]), ValueError, r"proportions\[0\] must be at least "),
    (lambda: adaptive_timesteps(9, 2, [-1, 2]), ValueError, r"proportions\[0\] must be at least 0"),
    (lambda: order_timesteps(9, []), ValueError, "the length of kept must be at least 1 and at m"),
    (lambda: order_timesteps(9, [1, 3, 1]), ValueError, "kept must have each timestep once: got 1"),
    (lambda: order_timesteps(9, [1, 9]), IndexError, r"kept\[1\] must be .* below 9: got 9"),
    (lambda: order_timesteps(9, [-1]), IndexError, r"kept\[0\] must be at least 0 and below 9: g"),
    (lambda: order_timesteps(9, [1.0]), TypeError, "kept must be integers: got float64"),
    (lambda: space_betas([0.5], [1]), IndexError, r"kept\[0\] must be at least 0 and below 1: go"),
    (lambda: space_betas([], [0]), ValueError, "the length of betas must be at least 1 and at mo"),
    (lambda: space_betas([0.5, NAN], [0]), ValueError, r"betas\[1\] must be above 0 and below 1: "),
    (lambda: space_betas([0.5, 1.0], [0]), ValueError, r"betas\[1\] must be above 0 and below 1: "),
    (lambda: space_betas([0.0], [0]), ValueError, r"betas\[0\] must be above 0 and below 1: got 0"),
    (lambda: space_betas([[0.5]], [0]), ValueError, r"betas must have the shape \[T\]: got \[1, 1"),
    (lambda: space_betas(["a"], [0]), TypeError, "betas must be numbers: got <U1"),
    (lambda: make_coefficients([0.999] * 200), ValueError, r"betas\[\d+\] must leave a product of"),
    (lambda: make_coefficients([1e-300]), ValueError, r"betas\[0\] must leave a product of 1 - be"),
    (lambda: find_neighbours([0.5, -0.5]), ValueError, r"betas\[1\] must be above 0 and below 1: "),
    (lambda: find_neighbours([]), ValueError, "the length of betas must be at least 1 and at mos"),
    (lambda: find_neighbours([0.5], NAN), ValueError, "tolerance must be finite and above 0: got "),
    (lambda: shift_timesteps([0], 9, -1, seed=0, step=0), ValueError, "distance must be at least "),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(PROBLEMS)))
def test_bad_arguments(number: int) -> None:
    call, error, text = PROBLEMS[number]
    with pytest.raises(error, match=text) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


def test_the_definition_refuses_the_same_betas() -> None:
    for betas in ([0.999] * 200, [1e-300], [0.5, NAN], [], [1.0]):
        agree(
            lambda betas: reference.space_betas(betas, [0]),
            lambda betas: space_betas(betas, [0]),
            betas,
        )


def test_constants() -> None:
    assert sum(ADAPTIVE_DECAY) == pytest.approx(1)
    assert NoiseNeighbours._fields == ("up", "down")
