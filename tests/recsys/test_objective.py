"""`recsys.objective`, SASRec and the teacher against what the authors' code computed."""

import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from lmcore.ops import sampled_logits as ops
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.modeling_sasrec import SASRecModel
from lmcore.recsys.objective import (
    NORMALIZATIONS,
    Counts,
    count_labels,
    packed_logits,
    take_negatives,
    ufn_loss,
)
from lmcore.recsys.teacher import EMATeacher


class Golden:
    """`golden/sasrec`: one batch, and three steps on it without dropout."""

    def __init__(self, folder: Path) -> None:
        self.weights = {
            name: load_file(folder / f"{name}.safetensors")
            for name in ("before", "after_3_steps", "ema_after_3_steps")
        }
        with np.load(folder / "io.npz") as arrays:
            io = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        items, length, hidden, blocks, heads = io["config"].tolist()
        self.config = SASRecConfig(
            item_count=items,
            max_length=length,
            hidden_size=hidden,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            dropout=0.0,
        )
        self.sequences = io["seq"].long()
        self.positives = io["pos"].long()
        negatives = io["neg"].long()
        self.flat_indices = self.positives.flatten().nonzero().squeeze(1)
        self.negatives = negatives.flatten(0, 1)[self.flat_indices]
        self.features, self.logits = io["features"], io["logits"].flatten(0, 1)[self.flat_indices]
        self.catalogue_scores = io["catalogue_scores"]
        count = negatives.shape[2]
        row, position, slot = io["reversed"].T
        position = torch.searchsorted(self.flat_indices, row * length + position)
        self.indices = position * count + slot
        self.labels = torch.zeros(len(self.flat_indices), 1 + count)
        self.labels[:, 0] = 1
        self.labels[position, 1 + slot] = 1
        self.teacher_logits = io["teacher_logits"].flatten(0, 1)[self.flat_indices]
        self.losses = io["losses"].tolist()
        self.alpha, self.lr = float(io["alpha"]), float(io["lr"])
        self.betas = tuple(io["betas"].tolist())
        self.decay = float(io["ema_decay"])

    def make_model(self) -> SASRecModel:
        model = SASRecModel(self.config)
        model.load_state_dict(self.weights["before"])
        return model


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> Golden:
    return Golden(golden_dir / "sasrec")


def compute_logits(model: SASRecModel, golden: Golden, way: str) -> Tensor:
    table = model.item_emb.weight
    if way == "packed":
        features = model.forward_packed(golden.sequences, golden.flat_indices)
        positives = golden.positives.flatten()[golden.flat_indices]
        return packed_logits(features, table, positives, golden.negatives)
    features = model(golden.sequences)
    return packed_logits(features, table, golden.positives, golden.negatives, golden.flat_indices)


def assert_near(made: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def assert_weights(model: torch.nn.Module, expected: dict[str, Tensor]) -> None:
    """All within 1e-5, but for the keys' biases.

    A softmax takes them out, so their gradient is zero but for rounding, which Adam turns into
    steps of any sign; in the authors' run they amount to less than 1e-4.
    """
    made = model.state_dict()
    assert sorted(made) == sorted(expected)
    for name, weight in expected.items():
        if name.endswith("in_proj_bias"):
            query, key, value = made[name].chunk(3)
            expected_query, expected_key, expected_value = weight.chunk(3)
            assert_near(torch.cat([query, value]), torch.cat([expected_query, expected_value]))
            torch.testing.assert_close(key, expected_key, atol=1e-4, rtol=0)
        else:
            assert_near(made[name], weight)


# Golden: the authors' code.


def test_features_and_scores(golden: Golden) -> None:
    model = golden.make_model().eval()
    with torch.no_grad():
        features = model(golden.sequences)
        assert_near(features, golden.features)
        assert_near(model.score_catalogue(features[:, -1]), golden.catalogue_scores)


@pytest.mark.parametrize("way", ["padded", "packed"])
def test_logits(golden: Golden, way: str) -> None:
    with torch.no_grad():
        assert_near(compute_logits(golden.make_model(), golden, way), golden.logits)


@pytest.mark.parametrize("way", ["padded", "packed"])
def test_three_steps(golden: Golden, way: str) -> None:
    model = golden.make_model().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=golden.lr, betas=golden.betas)
    teacher = EMATeacher(model, decay=golden.decay)
    for expected in golden.losses:
        loss = ufn_loss(
            compute_logits(model, golden, way),
            golden.labels,
            reversed_indices=golden.indices,
            teacher_logits=take_negatives(golden.teacher_logits, golden.indices),
            alpha=golden.alpha,
        )
        assert loss.total.item() == pytest.approx(expected, abs=1e-5)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        teacher.update()
    assert_weights(model, golden.weights["after_3_steps"])
    assert_weights(teacher.model, golden.weights["ema_after_3_steps"])


# Logits.


def make_batch(
    rows: int, negatives: int, size: int, items: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, table, positives, negatives."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, size, generator=generator)
    table = torch.randn(items + 1, size, generator=generator)
    chosen = torch.randint(1, items + 1, (rows, 1 + negatives), generator=generator)
    return features, table, chosen[:, 0], chosen[:, 1:]


@given(
    rows=st.integers(0, 9),
    negatives=st.integers(0, 7),
    size=st.integers(1, 5),
    items=st.integers(1, 12),
    seed=st.integers(0, 99),
    buffer=st.sampled_from([1, 40, 80_000]),
)
def test_products_and_their_gradients(
    rows: int, negatives: int, size: int, items: int, seed: int, buffer: int
) -> None:
    features, table, positives, drawn = make_batch(rows, negatives, size, items, seed)
    weights = torch.linspace(-1, 2, rows * (1 + negatives)).view(rows, 1 + negatives)
    results = []
    with mock.patch.object(ops, "_BUFFER_ELEMENTS", buffer):
        for dtype in (torch.float32, torch.float64):
            inputs = [x.to(dtype).requires_grad_() for x in (features, table)]
            logits = packed_logits(*inputs, positives, drawn)
            assert logits.shape == (rows, 1 + negatives)
            gradients = torch.autograd.grad((logits * weights).sum(), inputs)
            results.append([logits, *gradients])
    for made, expected in zip(*results, strict=True):
        torch.testing.assert_close(made, expected.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frozen", [0, 1])
def test_gradient_of_one_input_alone(frozen: int) -> None:
    inputs = list(make_batch(5, 3, 4, 9))
    whole = [x.clone().requires_grad_() for x in inputs[:2]]
    packed_logits(*whole, *inputs[2:]).sum().backward()
    parts = [x.clone().requires_grad_(position != frozen) for position, x in enumerate(inputs[:2])]
    packed_logits(*parts, *inputs[2:]).sum().backward()
    assert parts[frozen].grad is None
    assert torch.equal(parts[1 - frozen].grad, whole[1 - frozen].grad)


def test_items_0_get_no_gradient() -> None:
    for dtype in (torch.float32, torch.float64):
        features, table = torch.ones(1, 2, dtype=dtype), torch.ones(3, 2, dtype=dtype)
        table.requires_grad_()
        packed_logits(features, table, torch.tensor([1]), torch.tensor([[0, 2]])).sum().backward()
        assert table.grad.tolist() == [[0, 0], [1, 1], [1, 1]]


def test_shapes_of_logits() -> None:
    features, table, positives, negatives = make_batch(5, 3, 4, 9)
    with pytest.raises(ValueError, match="one row per position: got 5, 4 and 5"):
        packed_logits(features, table, positives[:4], negatives)
    with pytest.raises(ValueError, match=r"must be \[P, H\], \[P\] and \[P, N\]: got \[5, 4, 1\]"):
        packed_logits(features.unsqueeze(2), table, positives, negatives)


# The loss.


def make_labels(rows: int, negatives: int, indices: list[int]) -> Tensor:
    labels = torch.zeros(rows, negatives)
    labels.view(-1)[indices] = 1
    return torch.cat([torch.ones(rows, 1), labels], 1)


def bce(logit: float, label: float) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -label * math.log(probability) - (1 - label) * math.log(1 - probability)


def test_loss_by_hand() -> None:
    logits = torch.tensor([[1.0, 0.5, -2.0], [0.2, 3.0, -0.1]])
    labels = make_labels(2, 2, [2])
    entries = [(1.0, 1), (0.5, 0), (-2.0, 0), (0.2, 1), (3.0, 1), (-0.1, 0)]
    terms = [(label, bce(logit, label)) for logit, label in entries]
    ones = [term for label, term in terms if label]
    zeros = [term for label, term in terms if not label]
    options = {
        "reversed_indices": torch.tensor([2]),
        "teacher_logits": torch.tensor([0.7]),
        "alpha": 0.3,
    }
    consistency = bce(3.0, 1 / (1 + math.exp(-0.7)))
    loss = ufn_loss(logits, labels, **options)
    assert loss.bce.item() == pytest.approx(2 * sum(ones + zeros) / 6)
    assert loss.consistency is not None
    assert loss.consistency.item() == pytest.approx(consistency)
    assert loss.total.item() == pytest.approx(2 * sum(ones + zeros) / 6 + 0.3 * consistency)
    balanced = ufn_loss(logits, labels, normalization="balanced", **options)
    assert balanced.bce.item() == pytest.approx(sum(ones) / 3 + sum(zeros) / 3)
    assert balanced.total.item() == pytest.approx(balanced.bce.item() + 0.3 * consistency)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("turned", [None, [], [0, 5, 11]])
def test_labels_need_not_be_given(normalization: str, turned: list[int] | None) -> None:
    given = torch.randn(4, 4) * 3
    indices = None if turned is None else torch.tensor(turned, dtype=torch.long)
    labels = make_labels(4, 3, turned or [])
    results = []
    for known in (labels, None):
        logits = given.clone().requires_grad_()
        loss = ufn_loss(logits, known, reversed_indices=indices, normalization=normalization)
        (2 * loss.total).backward()
        results.append((loss.total.detach(), logits.grad))
    torch.testing.assert_close(results[1], results[0])


def test_one_negative_makes_both_normalizations_equal() -> None:
    logits, labels = torch.randn(7, 2), make_labels(7, 1, [])
    mean, balanced = (ufn_loss(logits, labels, normalization=n).total for n in NORMALIZATIONS)
    torch.testing.assert_close(mean, balanced)


@pytest.mark.parametrize("teacher", [None, torch.zeros(0)])
def test_consistency_is_absent_where_nothing_is_reversed(teacher: Tensor | None) -> None:
    none = torch.zeros(0, dtype=torch.long)
    labels = make_labels(2, 3, [])
    logits = torch.randn(2, 4)
    loss = ufn_loss(logits, labels, reversed_indices=none, teacher_logits=teacher, alpha=0.3)
    assert loss.consistency is None
    assert loss.total is loss.bce


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = torch.ones(1, requires_grad=True)
    logits = torch.zeros(1, 2, requires_grad=True)
    ufn_loss(
        logits,
        make_labels(1, 1, [0]),
        reversed_indices=torch.tensor([0]),
        teacher_logits=teacher,
        alpha=0.3,
    ).total.backward()
    assert logits.grad is not None
    assert teacher.grad is None


def test_norm_of_the_table() -> None:
    logits, labels = torch.zeros(1, 2), make_labels(1, 1, [])
    table = torch.tensor([[3.0], [4.0]])
    plain = ufn_loss(logits, labels).total
    loss = ufn_loss(logits, labels, item_emb=table, l2_emb=0.1)
    assert loss.total.item() == pytest.approx(plain.item() + 0.5)
    assert loss.bce.item() == pytest.approx(plain.item())


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_shares_of_a_batch_add_up(normalization: str) -> None:
    """With the counts of the whole batch, also where a share has no reversed negative."""
    torch.manual_seed(0)
    logits = torch.randn(6, 4)
    indices = [0, 2, 4]
    labels = make_labels(6, 3, indices)
    teacher = torch.randn(3)
    whole = ufn_loss(
        logits,
        labels,
        reversed_indices=torch.tensor(indices),
        teacher_logits=teacher,
        alpha=0.3,
        normalization=normalization,
    )
    counts = count_labels(labels)
    assert counts == Counts(entries=24, positives=9, reversed=3)
    shares = [
        ufn_loss(
            logits[rows],
            labels[rows],
            reversed_indices=torch.tensor(own, dtype=torch.long),
            teacher_logits=values,
            alpha=0.3,
            normalization=normalization,
            counts=counts,
        )
        for rows, own, values in ((slice(0, 3), indices, teacher), (slice(3, 6), [], teacher[:0]))
    ]
    torch.testing.assert_close(shares[0].total + shares[1].total, whole.total)


def test_empty_batch_has_no_loss() -> None:
    for normalization in NORMALIZATIONS:
        loss = ufn_loss(torch.zeros(0, 3), torch.zeros(0, 3), normalization=normalization)
        assert loss.total.item() == 0


def test_large_logits_stay_finite() -> None:
    logits = torch.tensor([[-200.0, 200.0]])
    for normalization in NORMALIZATIONS:
        loss = ufn_loss(logits, make_labels(1, 1, []), normalization=normalization)
        assert loss.total.item() == pytest.approx(400)


def test_wrong_arguments_of_the_loss() -> None:
    logits, labels = torch.zeros(1, 2), make_labels(1, 1, [])
    with pytest.raises(ValueError, match="must be one of mean, balanced: got 'sum'"):
        ufn_loss(logits, labels, normalization="sum")
    with pytest.raises(ValueError, match=r"both be \[P, 1 \+ N\]: got \[1, 2\] and \[1, 1\]"):
        ufn_loss(logits, labels[:, :1])
    with pytest.raises(ValueError, match="l2_emb needs item_emb"):
        ufn_loss(logits, labels, l2_emb=0.1)
    with pytest.raises(ValueError, match=r"both be \[R\]: got \[1\] and None"):
        ufn_loss(logits, labels, teacher_logits=torch.zeros(1), alpha=0.3)
