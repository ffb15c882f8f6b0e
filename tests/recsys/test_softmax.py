"""`recsys.softmax` and gBCE: definitions as loops, laws, and what is drawn how often."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from lmcore.ops.negatives import SequenceSampler
from lmcore.recsys.objective import among_logits, count_labels, find_gbce_beta, ufn_loss
from lmcore.recsys.softmax import CORRECTIONS, LogQ, catalogue_loss, sampled_softmax_loss

# Definitions, in float64 and one entry after the other.


def define_softmax(
    logits: Tensor, log_q: Tensor | None, turned: list[int], temperature: float
) -> float:
    rows, columns = logits.shape
    total = 0.0
    for p in range(rows):
        positives = [0] + [1 + k for k in range(columns - 1) if p * (columns - 1) + k in turned]
        scores = []
        for j in range(columns):
            corrected = 0.0
            if log_q is not None and log_q.shape[1] == columns:
                corrected = float(log_q[p, j])
            elif log_q is not None and j not in positives:
                corrected = float(log_q[p, 0])
            scores.append(float(logits[p, j]) / temperature - corrected)
        for a in positives:
            among = [a] + [j for j in range(columns) if j not in positives]
            total -= math.log(math.exp(scores[a]) / sum(math.exp(scores[j]) for j in among))
    return total / max(rows, 1)


def define_gbce(logits: Tensor, turned: list[int], beta: float) -> float:
    """2 x the mean of -ln of sigmoid(z) ** beta, or of 1 - sigmoid(z)."""
    rows, columns = logits.shape
    terms = []
    for p, j in product(range(rows), range(columns)):
        probability = 1 / (1 + math.exp(-float(logits[p, j])))
        one = j == 0 or p * (columns - 1) + j - 1 in turned
        terms.append(-math.log(probability**beta if one else 1 - probability))
    return 2 * sum(terms) / max(len(terms), 1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, list[int]]:
    """Logits and reversed negatives; a position may have none left, or all."""
    rows, negatives = draw(st.integers(0, 5)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    logits = 3 * torch.randn(rows, 1 + negatives, generator=generator, dtype=torch.float64)
    turned = draw(st.sets(st.integers(0, max(rows * negatives - 1, 0)))) if rows else set()
    return logits, sorted(turned)


def as_indices(turned: list[int]) -> Tensor:
    return torch.tensor(turned, dtype=torch.int64)


@given(
    case=cases(),
    shape=st.sampled_from(["none", "rows", "entries"]),
    temperature=st.sampled_from([1.0, 0.3]),
)
def test_sampled_softmax_is_its_definition(
    case: tuple[Tensor, list[int]], shape: str, temperature: float
) -> None:
    logits, turned = case
    columns = {"none": 0, "rows": 1, "entries": logits.shape[1]}[shape]
    log_q = torch.randn(len(logits), columns, dtype=torch.float64) if columns else None
    options: dict[str, Any] = {"log_q": log_q, "reversed_indices": as_indices(turned)}
    options["temperature"] = temperature
    made = sampled_softmax_loss(logits, **options)
    assert made.item() == pytest.approx(define_softmax(logits, log_q, turned, temperature))
    if len(logits):
        given = logits.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda z: 3 * sampled_softmax_loss(z, **options), given)
    if not turned:
        alone = sampled_softmax_loss(logits, log_q=log_q, temperature=temperature)
        torch.testing.assert_close(alone, made)


@given(case=cases(), beta=st.sampled_from([1.0, 0.7, 0.01]))
def test_gbce_is_its_definition(case: tuple[Tensor, list[int]], beta: float) -> None:
    logits, turned = case
    indices = as_indices(turned)
    made = ufn_loss(logits, reversed_indices=indices, beta=beta).total
    assert made.item() == pytest.approx(define_gbce(logits, turned, beta))
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    labels.view(-1).index_fill_(0, among_logits(logits, indices), 1)
    torch.testing.assert_close(ufn_loss(logits, labels, beta=beta).total, made)
    if len(logits):
        given = logits.clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda z: 3 * ufn_loss(z, reversed_indices=indices, beta=beta).total, given
        )


# gBCE.


def test_beta() -> None:
    """The paper's form, and its ends: the rate of sampling, and binary cross-entropy."""
    for negatives, items, t in product((1, 7, 40), (41, 1000), (0, 0.3, 0.75, 1)):
        rate = negatives / (items - 1)
        expected = rate * (t * (1 - 1 / rate) + 1 / rate)
        assert find_gbce_beta(negatives, items, t) == pytest.approx(expected)
    assert find_gbce_beta(10, 41, 0.0) == 1
    assert find_gbce_beta(10, 41, 1.0) == 0.25
    assert find_gbce_beta(100, 41, 0.5) == find_gbce_beta(3, 1, 0.5) == 1


@pytest.mark.parametrize("normalization", ["mean", "balanced"])
@pytest.mark.parametrize("turned", [None, [0, 3]])
def test_gbce_at_t_0_is_bce(normalization: str, turned: list[int] | None) -> None:
    indices = None if turned is None else as_indices(turned)
    results = []
    for beta in (1.0, find_gbce_beta(3, 41, 0.0)):
        logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        options: dict[str, Any] = {"reversed_indices": indices, "normalization": normalization}
        loss = ufn_loss(logits, beta=beta, **options).total
        results.append((loss.detach(), *torch.autograd.grad(loss, logits)))
    for bce, gbce in zip(*results, strict=True):
        assert torch.equal(bce, gbce)


def test_gbce_at_t_1_recovers_the_probabilities_of_training_with_all_items() -> None:
    """The theorem of gSASRec: for logits free of a model, the best one is ln(p / (1 - p))."""
    probability, items, negatives = 0.2, 101, 10
    beta = find_gbce_beta(negatives, items, 1.0)
    logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(100):
        # The item is the positive in p of the cases, else drawn with the rate of sampling.
        positive = ufn_loss(torch.stack([logit, -torch.inf * torch.ones(())])[None], beta=beta)
        # Of the sum, twice the mean over 2 entries is the sum; what is drawn has label 0.
        negative = functional.softplus(logit) * negatives / (items - 1)
        loss = probability * positive.total + (1 - probability) * negative
        (slope,) = torch.autograd.grad(loss, logit)
        with torch.no_grad():
            logit -= 20 * slope
    assert logit.sigmoid().item() == pytest.approx(probability, rel=1e-6)


def test_large_logits_stay_finite() -> None:
    for signs in ([-1.0, 1.0], [1.0, -1.0]):
        logits = (300 * torch.tensor([signs])).requires_grad_()
        for loss, least in (
            (ufn_loss(logits, beta=0.1).total, 330),
            (sampled_softmax_loss(logits), 600),
        ):
            assert loss.item() == pytest.approx(least if signs[0] < 0 else 0, abs=1e-3)
            (slopes,) = torch.autograd.grad(loss, logits)
            assert slopes.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalization", ["mean", "balanced"])
def test_losses_of_halves_are_those_of_floats(dtype: torch.dtype, normalization: str) -> None:
    """The sum of a batch is beyond float16, and a count of labels beyond bfloat16."""
    logits, turned = torch.randn(5001, 51).to(dtype), as_indices(list(range(0, 100_000, 50)))
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    labels.view(-1)[among_logits(logits, turned)] = 1
    assert count_labels(labels) == count_labels(labels.float())
    options: dict[str, Any] = {"normalization": normalization, "reversed_indices": turned}
    results = []
    for own in (logits.clone().requires_grad_(), logits.float().requires_grad_()):
        losses = (
            ufn_loss(own, labels, **options).total,
            ufn_loss(own, beta=0.5, **options).total,
            sampled_softmax_loss(own, reversed_indices=turned),
        )
        slopes = [torch.autograd.grad(loss, own)[0].to(dtype) for loss in losses]
        results.append([*(loss.detach() for loss in losses), *slopes])
    for made, expected in zip(*results, strict=True):
        assert torch.equal(made, expected)


def test_shares_of_a_batch_add_up() -> None:
    logits, turned = torch.randn(6, 4), as_indices([0, 2, 4])
    log_q = torch.randn(6, 1)
    whole = sampled_softmax_loss(logits, log_q=log_q, reversed_indices=turned)
    parts = [
        sampled_softmax_loss(logits[rows], log_q=log_q[rows], reversed_indices=own, positions=6)
        for rows, own in ((slice(0, 3), turned), (slice(3, 6), turned[:0]))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole)
    labels = torch.zeros(6, 4).index_fill(1, torch.tensor([0]), 1)
    gbce = [
        ufn_loss(part, beta=0.3, counts=count_labels(labels)).total
        for part in (logits[:2], logits[2:])
    ]
    torch.testing.assert_close(gbce[0] + gbce[1], ufn_loss(logits, beta=0.3).total)


# Softmax.


@given(case=cases())
def test_a_shift_of_a_position_changes_nothing(case: tuple[Tensor, list[int]]) -> None:
    logits, turned = case
    options: dict[str, Any] = {"log_q": torch.ones(len(logits), 1)}
    options |= {"reversed_indices": as_indices(turned)}
    shifts = torch.linspace(-9, 9, len(logits), dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        sampled_softmax_loss(logits + shifts, **options), sampled_softmax_loss(logits, **options)
    )


@pytest.mark.parametrize("history", [[2], [2, 5, 1]])
def test_all_negatives_are_the_cross_entropy_without_the_history(history: list[int]) -> None:
    """Each item outside of the history once: with equal weights the correction is ln 1."""
    items, positive = 8, history[0]
    others = [i for i in range(1, items + 1) if i not in history]
    sampler = SequenceSampler([0, len(history)], history, items)
    features, table = torch.randn(1, 3), torch.randn(items + 1, 3)
    negatives = torch.tensor([others])
    log_q = LogQ(sampler.draw_weights()).of_batch(
        torch.tensor([1]), torch.tensor([positive]), negatives
    )
    logits = features @ table[[positive, *others]].T
    made = sampled_softmax_loss(logits, log_q=log_q)
    masked = (features @ table.T).index_fill(
        1, torch.tensor([0, *(set(history) - {positive})]), -torch.inf
    )
    torch.testing.assert_close(made, functional.cross_entropy(masked, torch.tensor([positive])))
    if len(history) == 1:
        torch.testing.assert_close(made, catalogue_loss(features, table, torch.tensor([positive])))


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_the_corrected_sum_is_unbiased(distribution: str) -> None:
    """Over many draws, the mean of the sums in the loss is the sum over all items."""
    rows = [[1, 2, 2, 3, 9], [4, 2, 2, 1], [2, 5, 6, 7, 8]]
    offsets = np.cumsum([0, *map(len, rows)])
    sampler = SequenceSampler(
        offsets, np.concatenate(rows), 9, batch_size=200, max_length=5, negative_count=8,
        distribution=distribution, seed=3,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(10, generator=generator, dtype=torch.float64)
    corrected = LogQ(sampler.draw_weights())
    sums: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for epoch in range(20):
        batch = sampler.sample_packed(epoch, 0)
        users = torch.from_numpy(batch.users[batch.flat_indices // 5])
        positives = torch.from_numpy(batch.positives.ravel()[batch.flat_indices])
        negatives = torch.from_numpy(batch.negatives)
        log_q = corrected.of_batch(users, positives, negatives)
        assert log_q is not None
        taken = log_q if distribution == "uniform" else log_q[:, 1:]
        found = (scores[negatives] - taken).exp().sum(1)
        for user, value in zip(users.tolist(), found.tolist(), strict=True):
            sums[user].append(value)
    drawn = {item for row in rows for item in row} if distribution == "popularity" else range(1, 10)
    for user, values in sums.items():
        others = sorted(set(drawn) - set(rows[user - 1]))
        expected = float(scores[others].exp().sum())
        error = np.std(values) / len(values) ** 0.5
        assert abs(np.mean(values) - expected) < 4 * error + 1e-9
        assert error < 0.03 * expected


def test_weights_of_draws_are_what_is_drawn() -> None:
    rows = [[1, 2, 2, 3], [4, 2, 1], [2, 5, 6, 7, 8], [3]]
    offsets = np.cumsum([0, *map(len, rows)])
    for distribution, exponent in (("uniform", 0.75), ("popularity", 0.75), ("popularity", 2.0)):
        sampler = SequenceSampler(
            offsets, np.concatenate(rows), 9, batch_size=64, max_length=4, negative_count=99,
            distribution=distribution, exponent=exponent,
        )  # fmt: skip
        weights = sampler.draw_weights()
        counts = np.zeros((5, 10))
        for epoch in range(30):
            batch = sampler.sample_packed(epoch, 0)
            owners = batch.users[batch.flat_indices // 4]
            np.add.at(counts, (np.repeat(owners, 99), batch.negatives.ravel()), 1)
        for user, row in enumerate(rows[:3], 1):
            probabilities = np.exp(weights.items - weights.users[user - 1])
            probabilities[np.array(row) - 1] = 0
            assert probabilities.sum() == pytest.approx(1, abs=1e-9)
            shares = counts[user, 1:] / counts[user].sum()
            assert shares == pytest.approx(probabilities, abs=0.01)
            assert ((shares > 0) == (probabilities > 0)).all()


def test_what_is_reversed_is_corrected_as_a_positive() -> None:
    sampler = SequenceSampler(
        [0, 3, 6], [1, 2, 3, 4, 5, 4], 5, distribution="popularity", exponent=1
    )
    weights = sampler.draw_weights()
    batch = torch.tensor([1, 2]), torch.tensor([2, 4]), torch.tensor([[4, 5], [1, 2]])
    made = LogQ(weights).of_batch(*batch, as_indices([0, 3]))
    assert made is not None
    expected = [[0.0, 0.0, math.log(2 / 3)], [0.0, math.log(2 / 3), 0.0]]
    torch.testing.assert_close(made, torch.tensor(expected))
    every = LogQ(weights, kind="all").of_batch(*batch, as_indices([0, 3]))
    assert every is not None
    ratios = (every - every[1, 1]).exp()
    torch.testing.assert_close(ratios, torch.tensor([[1.0, 2, 1], [2, 1, 1]]))


def test_corrections_that_change_nothing() -> None:
    weights = SequenceSampler([0, 3], [1, 2, 3], 5).draw_weights()
    batch = torch.tensor([1]), torch.tensor([2]), torch.tensor([[4, 5]])
    assert LogQ(weights, kind="all").of_batch(*batch) is None
    assert LogQ(weights, kind="none").of_batch(*batch) is None
    assert "negatives" in CORRECTIONS
    with pytest.raises(ValueError, match="kind must be one of negatives, all, none: got 'some'"):
        LogQ(weights, kind="some")


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_catalogue_loss_is_torchs(temperature: float) -> None:
    inputs = [torch.randn(7, 3), torch.randn(6, 3)]
    positives = torch.tensor([1, 5, 2, 2, 3, 4, 1], dtype=torch.int32)
    results = []
    for own in (True, False):
        features, table = (tensor.clone().requires_grad_() for tensor in inputs)
        if own:
            loss = catalogue_loss(features, table, positives, temperature=temperature)
        else:
            scores = features @ table[1:].T / temperature
            loss = functional.cross_entropy(scores, positives.long() - 1)
        results.append((loss.detach(), *torch.autograd.grad(loss, (features, table))))
    for made, expected in zip(*results, strict=True):
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    empty = catalogue_loss(inputs[0][:0], inputs[1], positives[:0], positions=7)
    assert empty.item() == 0
    # Less 1, -99 is what cross-entropies pass over.
    for wrong in (positives + 1, positives - 1, torch.full((7,), -99)):
        with pytest.raises(IndexError):
            catalogue_loss(inputs[0], inputs[1], wrong)


def test_shapes() -> None:
    with pytest.raises(ValueError, match=r"log_q \[P, 1 \+ N\] or \[P, 1\]: got \[2, 3\] and \[2]"):
        sampled_softmax_loss(torch.zeros(2, 3), log_q=torch.zeros(2))
    with pytest.raises(ValueError, match=r"logits must be \[P, 1 \+ N\]"):
        sampled_softmax_loss(torch.zeros(2))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperatures_that_are_none(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0: got "):
        sampled_softmax_loss(torch.zeros(1, 2), temperature=temperature)
    with pytest.raises(ValueError, match="temperature must be above 0: got "):
        catalogue_loss(
            torch.zeros(1, 2), torch.ones(3, 2), torch.tensor([1]), temperature=temperature
        )


def test_calibrations_that_are_none() -> None:
    for t in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="t must be from 0 to 1: got "):
            find_gbce_beta(5, 9, t)
    with pytest.raises(ValueError, match="negatives must be at least 1: got 0"):
        find_gbce_beta(0, 9, 0.5)
