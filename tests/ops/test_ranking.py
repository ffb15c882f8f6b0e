"""`ops.ranking` against the authors' evaluator, ranx, the laws of ranks, and its definition."""

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmcore.ops._dispatch import use
from lmcore.ops.ranking import TIES, Ranks, rank_targets, ranking_metrics
from lmcore.reference import ranking as reference
from parity import agree

Lists = tuple[list[float], list[int]]
Case = tuple[list[list[float]], list[int], list[int], list[int]]

WIDTHS = st.sampled_from([1, 2, 3, 63, 64, 65, 130])
# Few values, so that ties are frequent, and all kinds of zeros and infinities.
few_scores = st.sampled_from([0.0, -0.0, 1.0, 2.0, -1.5, math.inf, -math.inf])
all_scores = st.floats(width=32, allow_nan=False)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Scores, targets, offsets and excluded columns that fit each other."""
    users, width = draw(st.integers(0, 4)), draw(WIDTHS)
    values = draw(st.sampled_from([few_scores, all_scores]))
    rows = [draw(st.lists(values, min_size=width, max_size=width)) for _ in range(users)]
    columns = st.integers(0, width - 1)
    targets = draw(st.lists(columns, min_size=users, max_size=users))
    histories = [draw(st.lists(columns, max_size=8)) for _ in range(users)]
    offsets = np.cumsum([0, *map(len, histories)]).tolist()
    return rows, targets, offsets, [column for history in histories for column in history]


def as_lists(scores: Any, *args: Any, dtype: str = "float32", **kwargs: Any) -> Lists:
    """The op on lists, as lists."""
    array = np.array(scores, dtype=dtype).reshape(len(scores), len(scores[0]) if scores else 0)
    ranks, ties = rank_targets(array, *args, **kwargs)
    assert (ranks.dtype, ties.dtype) == (np.float64, np.int64)
    return ranks.tolist(), ties.tolist()


def on_device(
    scores: Any, targets: Any, offsets: Any, excluded: Any, ties: str = "average"
) -> Lists:
    """The op in torch, as on a device that is not the CPU."""
    width = len(scores[0]) if scores else 0
    tensor = torch.tensor(scores, dtype=torch.float32).reshape(len(scores), width)
    with use("reference"):
        ranks, tied = rank_targets(tensor, targets, offsets, excluded, ties=ties)
    assert (ranks.dtype, tied.dtype) == (np.float64, np.int64)
    return ranks.tolist(), tied.tolist()


def random_block(users: int, width: int, seed: int = 0) -> tuple[NDArray[np.float32], Any]:
    """Scores with some ties, and (targets, offsets, excluded)."""
    source = np.random.default_rng(seed)
    scores = source.standard_normal((users, width)).astype(np.float32).round(2)
    offsets = np.arange(users + 1) * 7
    excluded = source.integers(0, width, 7 * users)
    return scores, (source.integers(0, width, users), offsets, excluded)


# Golden: the authors' evaluator and worked examples.


@pytest.mark.parametrize("width", [1, 2, 101, 1000])
def test_ranks_without_ties_are_those_of_the_authors(width: int) -> None:
    source = np.random.default_rng(width)
    scores = np.stack([source.permutation(width) for _ in range(50)]).astype(np.float32)
    expected = (-scores).argsort(axis=1).argsort(axis=1)[:, 0]
    for rule in TIES:
        ranks, ties = rank_targets(scores, np.zeros(50, np.int64), ties=rule)
        assert ranks.tolist() == expected.tolist()
        assert not ties.any()
    hits = [float(rank < 10) for rank in expected]
    gains = [1 / math.log2(rank + 2) if rank < 10 else 0.0 for rank in expected]
    metrics = ranking_metrics(ranks)
    assert metrics["HR@10"] == np.mean(hits)
    assert metrics["NDCG@10"] == pytest.approx(np.mean(gains), rel=1e-12)


@pytest.mark.parametrize(
    ("excluded", "expected", "tied"),
    [
        ([], (3.0, 2, 4), 2),
        ([0], (2.0, 1, 3), 2),
        ([0, 0, 0], (2.0, 1, 3), 2),
        ([3], (2.5, 2, 3), 1),
        ([3, 5, 3], (2.0, 2, 2), 0),
        ([2], (3.0, 2, 4), 2),
        ([2, 1, 0], (1.0, 0, 2), 2),
        ([0, 1, 2, 3, 4, 5], (0.0, 0, 0), 0),
        ([4], (3.0, 2, 4), 2),
    ],
    ids=str,
)
def test_rules_for_ties(excluded: list[int], expected: tuple[float, ...], tied: int) -> None:
    scores, offsets = [[4.0, 3.0, 1.0, 1.0, 0.0, 1.0]], [0, len(excluded)]
    for rule, rank in zip(TIES, expected, strict=True):
        given = scores, [2], offsets, excluded, rule
        assert reference.rank_targets(*given) == ([rank], [tied])
        assert as_lists(scores, [2], offsets, excluded, ties=rule) == ([rank], [tied])
        assert on_device(*given) == ([rank], [tied])


def test_a_drawn_candidate_that_is_the_target_counts_as_a_tie() -> None:
    scores = [[0.1, 0.5, 0.1, 0.7]]  # the target's, then the drawn ones', of which one is it
    assert as_lists(scores, [0]) == ([2.5], [1])
    assert as_lists(scores, [0], [0, 1], [2]) == ([2.0], [0])


def test_metrics_by_hand() -> None:
    metrics = agree(reference.ranking_metrics, ranking_metrics, [0.0, 3.0, 9.0, 10.0])
    assert metrics == {
        "HR@1": 0.25,
        "HR@5": 0.5,
        "HR@10": 0.75,
        "NDCG@1": 0.25,
        "NDCG@5": pytest.approx((1 + 1 / math.log2(5)) / 4),
        "NDCG@10": pytest.approx((1 + 1 / math.log2(5) + 1 / math.log2(11)) / 4),
        "MRR": pytest.approx((1 + 1 / 4 + 1 / 10 + 1 / 11) / 4),
    }
    assert list(metrics) == ["HR@1", "HR@5", "HR@10", "NDCG@1", "NDCG@5", "NDCG@10", "MRR"]
    # A shared first place is a hit at 1.
    assert ranking_metrics([0.5], [1])["HR@1"] == 1
    assert ranking_metrics([1.0], [1])["HR@1"] == 0


# Golden: ranx.


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_ranx(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiling it would take longer than all other tests of this file.
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    from ranx import Qrels, Run, evaluate

    source = np.random.default_rng(seed)
    users, width = 40, 150
    scores = np.stack([source.permutation(width) for _ in range(users)]).astype(np.float32)
    targets = source.integers(0, width, users)
    histories = [source.choice(width, 12, replace=False) for _ in range(users)]
    offsets, excluded = np.arange(users + 1) * 12, np.concatenate(histories)
    for user in range(0, users, 3):  # some targets near the top
        scores[user, targets[user]] = width + source.integers(-8, 2) + 0.5

    metrics = ranking_metrics(rank_targets(scores, targets, offsets, excluded).ranks, (1, 5, 10))
    run = {
        f"u{user}": {
            f"i{item}": float(scores[user, item])
            for item in range(width)
            if item == targets[user] or item not in histories[user]
        }
        for user in range(users)
    }
    relevant = {f"u{user}": {f"i{targets[user]}": 1} for user in range(users)}
    names = {f"HR@{k}": f"hit_rate@{k}" for k in (1, 5, 10)}
    names |= {f"NDCG@{k}": f"ndcg@{k}" for k in (1, 5, 10)} | {"MRR": "mrr"}
    expected = evaluate(Qrels(relevant), Run(run), list(names.values()))
    assert set(metrics) == set(names)
    for ours, theirs in names.items():
        assert metrics[ours] == pytest.approx(expected[theirs], rel=1e-12), ours


# Laws.


@given(cases(), st.sampled_from(TIES), st.randoms(use_true_random=False))
def test_order_of_candidates_does_not_matter(case: Case, rule: str, source: Any) -> None:
    scores, targets, offsets, excluded = case
    width = len(scores[0]) if scores else 0
    order = list(range(width))  # column c goes to order[c]
    source.shuffle(order)
    shuffled = [[row[order.index(c)] for c in range(width)] for row in scores]
    columns = [order[c] for c in targets], offsets, [order[c] for c in excluded]
    expected = as_lists(*case, ties=rule)
    assert as_lists(shuffled, *columns, ties=rule) == expected
    ranks = np.array(expected[0])
    if len(ranks):
        assert ranking_metrics(ranks)["HR@1"] == np.mean(ranks < 1)


@given(cases())
def test_rules_are_ordered_and_enclose_the_ties(case: Case) -> None:
    average, optimistic, pessimistic = (rank_of(case, rule) for rule in TIES)
    ties = np.array(as_lists(*case)[1])
    assert (pessimistic - optimistic == ties).all()
    assert (average * 2 == optimistic + pessimistic).all()
    assert (optimistic >= 0).all()
    width = len(case[0][0]) if case[0] else 0
    assert (pessimistic <= max(width - 1, 0)).all()


def rank_of(case: Case, rule: str) -> NDArray[np.float64]:
    return np.array(as_lists(*case, ties=rule)[0])


@given(cases())
def test_ranks_of_all_columns_add_up(case: Case) -> None:
    """Under `average`, the candidates of one user share the ranks 0..n-1."""
    scores, _, offsets, excluded = case
    for user, row in enumerate(scores):
        history = set(excluded[offsets[user] : offsets[user + 1]])
        kept = [c for c in range(len(row)) if c not in history]
        bounds = [len(history) * u for u in range(len(kept) + 1)]
        ranks, _ = as_lists([row] * len(kept), kept, bounds, [*history] * len(kept))
        assert sum(ranks) == len(kept) * (len(kept) - 1) / 2


@given(cases(), st.sampled_from(TIES))
def test_increasing_maps_change_nothing(case: Case, rule: str) -> None:
    scores, *rest = case
    order = {value: k for k, value in enumerate(sorted({x for r in scores for x in r}))}
    mapped = [[order[x] for x in row] for row in scores]
    assert as_lists(mapped, *rest, ties=rule) == as_lists(*case, ties=rule)


@given(cases(), st.sampled_from(TIES))
def test_a_higher_score_never_lowers_a_target(case: Case, rule: str) -> None:
    scores, targets, *rest = case
    raised = [list(row) for row in scores]
    for row, target in zip(raised, targets, strict=True):
        row[target] = math.inf
    before, after = rank_of(case, rule), rank_of((raised, targets, *rest), rule)
    assert (after <= before).all()


@pytest.mark.parametrize("width", [1, 2, 64, 65, 70_000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_scores(width: int, dtype: str) -> None:
    scores = np.full((3, width), 0.1, dtype=dtype)
    excluded = [width - 1, 0, width - 1]
    left = width - len({0, width - 1} - {0})
    for rule, share in (("average", 0.5), ("optimistic", 0), ("pessimistic", 1)):
        ranks, ties = rank_targets(scores, [0, 0, 0], [0, 0, 0, 3], excluded, ties=rule)
        assert ties.tolist() == [width - 1, width - 1, left - 1]
        assert ranks.tolist() == (share * ties).tolist()


@pytest.mark.parametrize("users", [0, 1, 255, 256, 257, 700])
def test_any_number_of_threads_gives_the_same_ranks(users: int) -> None:
    scores, columns = random_block(users, 300)
    expected = [values.tolist() for values in rank_targets(scores, *columns, threads=1)]
    for threads in (2, 3, 8, None):
        got = rank_targets(scores, *columns, threads=threads)
        assert [values.tolist() for values in got] == expected


@pytest.mark.parametrize("size", [1, 7, 64])
def test_blocks_of_users_give_what_all_together_give(size: int) -> None:
    scores, (targets, offsets, excluded) = random_block(65, 300)
    expected = rank_targets(scores, targets, offsets, excluded).ranks.tolist()
    ranks: list[float] = []
    for start in range(0, 65, size):
        bounds = offsets[start : start + size + 1]
        part = excluded[bounds[0] : bounds[-1]]
        block = slice(start, start + size)
        ranks += rank_targets(
            scores[block], targets[block], bounds - bounds[0], part
        ).ranks.tolist()
    assert ranks == expected


def test_a_score_that_is_no_number_may_be_excluded() -> None:
    scores = np.array([[1, np.nan, 2, np.nan, 1]], dtype=np.float32)
    assert rank_targets(scores, [0], [0, 3], [3, 1, 3]).ranks.tolist() == [1.5]
    assert on_device(scores.tolist(), [0], [0, 3], [3, 1, 3]) == ([1.5], [1])
    for history, column in (([1], 3), ([3], 1), ([], 1), ([0, 2, 4], 1)):
        message = rf"^scores\[0, {column}\] must be a number: got nan$"
        for rank in (as_lists, on_device, reference.rank_targets):
            with pytest.raises(ValueError, match=message):
                rank(scores.tolist(), [0], [0, len(history)], history)


# Parity.


@given(cases(), st.sampled_from(TIES), st.sampled_from(["float32", "float64"]))
def test_ranks_agree(case: Case, rule: str, dtype: str) -> None:
    expected = agree(reference.rank_targets, as_lists, *case, ties=rule)
    assert as_lists(*case, ties=rule, dtype=dtype) == expected
    assert on_device(*case, rule) == expected


def test_ranks_of_wide_rows_agree() -> None:
    scores, columns = random_block(3, 70_001)
    agree(reference.rank_targets, as_lists, scores.tolist(), *(p.tolist() for p in columns))


numbers = st.one_of(st.floats(0, 12), st.integers(0, 12), st.floats(0, 1e300), st.integers(0, 9999))


@given(st.lists(numbers, min_size=1, max_size=30), st.lists(st.integers(1, 12), max_size=4))
def test_metrics_agree(ranks: list[float], cutoffs: list[int]) -> None:
    expected = reference.ranking_metrics(ranks, cutoffs)
    got = ranking_metrics(ranks, cutoffs)
    assert list(got) == list(expected)
    assert list(got.values()) == pytest.approx(list(expected.values()), rel=1e-12)
    hits = {key for key in got if key.startswith("HR")}
    assert {key: got[key] for key in hits} == {key: expected[key] for key in hits}
    assert all(0 <= value <= 1 for value in got.values())


# Parity: refusals.


@st.composite
def broken_cases(draw: st.DrawFn) -> tuple[Case, str]:
    """Cases with one or two faults, or none."""
    rows, targets, offsets, excluded = draw(cases())
    rule = "average"
    for _ in range(draw(st.integers(1, 2))):
        fault = draw(st.sampled_from(["nan", "target", "offset", "excluded", "lengths", "rule"]))
        wild = draw(
            st.sampled_from([-1, 0, 1, 64, 200, -(2**63), 2**63 - 1, 2**63, -(2**63) - 1, 2**64])
        )
        row = draw(st.integers(0, len(rows) - 1)) if rows else 0
        if fault == "nan" and rows:
            rows[row][draw(st.integers(0, len(rows[row]) - 1))] = math.nan
        elif fault == "target" and targets:
            targets[row % len(targets)] = wild
        elif fault == "offset" and offsets:
            offsets[draw(st.integers(0, len(offsets) - 1))] = wild
        elif fault == "excluded" and excluded:
            excluded[draw(st.integers(0, len(excluded) - 1))] = wild
        elif fault == "lengths":
            part = draw(st.sampled_from([targets, offsets, excluded]))
            part.append(0) if draw(st.booleans()) or not part else part.pop()
        elif fault == "rule":
            rule = draw(st.sampled_from(["", "Average", "mean", "it's", *TIES]))
    return (rows, targets, offsets, excluded), rule


@given(broken_cases())
def test_refusals_agree(given_case: tuple[Case, str]) -> None:
    case, rule = given_case
    result = agree(reference.rank_targets, as_lists, *case, ties=rule)
    if rule in TIES:
        got = agree(reference.rank_targets, on_device, *case, rule)
        assert str(got) == str(result)


@pytest.mark.parametrize(
    "ranks",
    [
        [],
        [-1.0],
        [0.0, -0.5],
        [math.nan],
        [1.0, math.inf],
        [-math.inf],
        [-1e-7],
        [-1.25e22],
        [-0.0],
    ],
    ids=str,
)
def test_refused_ranks_agree(ranks: list[float]) -> None:
    agree(reference.ranking_metrics, ranking_metrics, ranks)


@given(st.floats(max_value=0, allow_infinity=True))
def test_refused_ranks_are_written_alike(rank: float) -> None:
    agree(reference.ranking_metrics, ranking_metrics, [0.0, rank], [1])


@pytest.mark.parametrize("cutoffs", [[0], [1, -3], [5, 0, -1], []], ids=str)
def test_refused_cutoffs_agree(cutoffs: list[int]) -> None:
    agree(reference.ranking_metrics, ranking_metrics, [0.0], cutoffs)


# Arguments of all kinds.


def test_rows_may_lie_anywhere() -> None:
    scores, columns = random_block(20, 67)
    expected = [values.tolist() for values in rank_targets(scores, *columns)]
    wide = np.zeros((20, 69), dtype=np.float32)
    wide[:, 1:-1] = scores
    packed = np.zeros(scores.size * 4 + 1, dtype=np.uint8)
    unaligned = packed[1:].view(np.float32).reshape(scores.shape)
    unaligned[:] = scores
    frozen = scores.copy()
    frozen.flags.writeable = False
    forms = [
        wide[:, 1:-1],
        np.asfortranarray(scores),
        scores[::-1].copy()[::-1],
        np.repeat(scores, 2, axis=1)[:, ::2],
        scores.astype(">f4"),
        unaligned,
        frozen,
        scores.tolist(),
        scores.astype(np.float64),
    ]
    for form in forms:
        got = rank_targets(form, *columns)
        assert [values.tolist() for values in got] == expected
    same = np.broadcast_to(scores[:1], scores.shape)
    assert (
        rank_targets(same, [3] * 20).ranks.tolist() == [rank_targets(same, [3] * 20).ranks[0]] * 20
    )


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint32", "int64", "uint64", ">i4"])
def test_integers_of_any_kind(kind: str) -> None:
    scores, columns = random_block(10, 67)
    expected = rank_targets(scores, *columns).ranks.tolist()
    kinds = [np.repeat(values, 2).astype(kind)[::2] for values in columns]
    assert rank_targets(scores, *kinds).ranks.tolist() == expected
    assert rank_targets(scores, *(values.tolist() for values in columns)).ranks.tolist() == expected


def test_tensors() -> None:
    scores, columns = random_block(30, 67)
    expected = [values.tolist() for values in rank_targets(scores, *columns)]
    tensor = torch.from_numpy(scores)
    tensors = [torch.from_numpy(values) for values in columns]
    wide = torch.zeros(30, 68)
    wide[:, 1:] = tensor
    leaf = tensor.clone().requires_grad_()
    for form in (tensor, tensor.double(), wide[:, 1:], tensor.T.contiguous().T, leaf, leaf * 1):
        for given_columns in (columns, tensors):
            got = rank_targets(form, *given_columns)
            assert isinstance(got, Ranks)
            assert [values.tolist() for values in got] == expected
    metrics = ranking_metrics(torch.tensor(expected[0]))
    assert metrics == ranking_metrics(expected[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu() -> None:
    scores, columns = random_block(300, 1_001)
    tensor = torch.from_numpy(scores).cuda()
    for rule in TIES:
        expected = [values.tolist() for values in rank_targets(scores, *columns, ties=rule)]
        tensors = [torch.from_numpy(values).cuda() for values in columns]
        got = rank_targets(tensor, *tensors, ties=rule)
        assert [values.tolist() for values in got] == expected
    tensor[7, 3] = math.nan
    with pytest.raises(ValueError, match=r"^scores\[7, 3\] must be a number: got nan$"):
        rank_targets(tensor, columns[0])


def test_no_users_and_no_columns() -> None:
    for shape in ((0, 0), (0, 5)):
        ranks, ties = rank_targets(np.zeros(shape, np.float32), [], [0], [])
        assert (ranks.shape, ties.shape) == ((0,), (0,))
        ranks, ties = rank_targets(torch.zeros(shape), [])
        assert (ranks.shape, ties.shape) == ((0,), (0,))
        with use("reference"):
            by_torch = rank_targets(torch.zeros(shape), [], [0], [])
        assert [values.tolist() for values in by_torch] == [[], []]
    with pytest.raises(IndexError, match=r"^targets\[0\] must be at least 0 and below 0: got 0$"):
        rank_targets(np.zeros((1, 0), np.float32), [0])


WRONG: Sequence[tuple[dict[str, Any], type[Exception], str]] = [
    ({"scores": np.zeros((2, 3), np.float16)}, TypeError, "scores must be float32 or float64: got"),
    ({"scores": np.zeros((2, 3), np.int64)}, TypeError, "scores must be float32 or float64: got"),
    ({"scores": torch.zeros(2, 3).bfloat16()}, TypeError, "float64: got torch.bfloat16"),
    ({"scores": [["a"]]}, TypeError, "scores must be float32 or float64: got"),
    ({"scores": np.zeros(3)}, ValueError, r"\[users, columns\]: got \(3,\)"),
    ({"scores": torch.zeros(1, 2, 3)}, ValueError, r"\[users, columns\]: got \(1, 2, 3\)"),
    ({"targets": [0.0, 1.0]}, TypeError, "targets must be integers: got float64"),
    ({"targets": [True, False]}, TypeError, "targets must be integers: got bool"),
    ({"targets": [[0], [1]]}, ValueError, r"targets must have the shape \[users\]: got \[2, 1\]"),
    ({"targets": 0}, ValueError, r"targets must have the shape \[users\]: got \[\]"),
    ({"offsets": ["0", "0", "0"]}, TypeError, "offsets must be integers"),
    ({"excluded": np.array([1.5])}, TypeError, "excluded must be integers"),
    ({"excluded": None}, ValueError, "offsets needs excluded: got None"),
    ({"offsets": None}, ValueError, "excluded needs offsets: got None"),
    ({"threads": 0}, ValueError, "threads must be at least 1: got 0"),
    ({"threads": -1}, ValueError, "threads must be at least 1: got -1"),
    ({"ties": "first"}, ValueError, "ties must be one of average, optimistic, pessimistic"),
]


@pytest.mark.parametrize(("change", "kind", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_arguments_are_named(
    change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {
        "scores": np.zeros((2, 3), np.float32),
        "targets": [0, 1],
        "offsets": [0, 0, 0],
        "excluded": [],
    }
    with pytest.raises(kind, match=message):
        rank_targets(**arguments | change)


def test_wrong_arguments_of_metrics_are_named() -> None:
    with pytest.raises(TypeError, match=r"^ranks must be numbers: got <U1$"):
        ranking_metrics(["a"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"^ranks must be numbers: got bool$"):
        ranking_metrics([True])
    with pytest.raises(ValueError, match=r"^ranks must have one dimension: got \(1, 1\)$"):
        ranking_metrics([[0.0]])
    with pytest.raises(TypeError, match=r"^cutoffs\[1\] must be an int: got float$"):
        ranking_metrics([0.0], [1, 5.0])  # type: ignore[list-item]
