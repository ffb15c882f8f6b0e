"""Gates of the hard concrete distribution, and the number of parameters as a function of gates."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcore.compression.gates import (
    BETA,
    GAMMA,
    ZETA,
    Gates,
    SizePolynomial,
    decide_gates,
    find_open,
    sample_gates,
)
from lmcore.cost import Shape, count_parameters

SHAPE = Shape(
    encoder_layers=3, decoder_layers=4, hidden_size=12, heads=6, groups=3, head_size=4,
    inner_size=10, vocabulary_size=50, qkv_bias=True, output_bias=True, inner_bias=True,
    norm_bias=True, head_bias=True, tied=True,
)  # fmt: skip
SHAPES = {
    "both stacks": SHAPE,
    "untied": replace(SHAPE, tied=False, gated=False, head_norm=True),
    "biases of a stack": replace(SHAPE, bias_buckets=8),
    "biases of a layer": replace(SHAPE, bias_buckets=8, bias_of_each_layer=True),
    "decoder": replace(SHAPE, encoder_layers=0, position_rows=16),
    "encoder": replace(SHAPE, decoder_layers=0, position_rows=16),
}


def test_draws_have_the_published_distribution() -> None:
    """Shares of shut, open and half-open gates, and the mean between, against equation 11."""
    log_alpha = torch.tensor([-2.0, 0.0, 1.0, 2.5])[:, None]
    draws = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    found = sample_gates(log_alpha.double(), draws)
    odds = np.log(draws.numpy()) - np.log1p(-draws.numpy())
    for row, alpha in zip(found, log_alpha[:, 0].tolist(), strict=True):
        s = 1 / (1 + np.exp(-(odds + alpha) / BETA))
        expected = np.minimum(1, np.maximum(0, s * (ZETA - GAMMA) + GAMMA))
        assert np.abs(row.numpy() - expected).max() < 1e-6
        shut = 1 / (1 + np.exp(alpha - BETA * np.log(-GAMMA / ZETA)))
        assert abs(float((row == 0).double().mean()) - shut) < 1e-4
        assert abs(float(find_open(torch.tensor(alpha))) - (1 - shut)) < 1e-6


def test_gates_without_draw() -> None:
    log_alpha = torch.linspace(-6, 6, 101)
    found = decide_gates(log_alpha)
    expected = (torch.sigmoid(log_alpha) * 1.2 - 0.1).clamp(0, 1)
    assert torch.allclose(found, expected)
    assert found[[0, -1]].tolist() == [0, 1]


def test_a_gate_is_a_function_of_seed_step_and_number() -> None:
    gates = Gates(SHAPE)
    first = gates.sample(seed=3, step=7)
    gates.sample(seed=3, step=8)
    torch.manual_seed(0)
    assert torch.equal(first, gates.sample(seed=3, step=7))
    assert not torch.equal(first, gates.sample(seed=3, step=8))
    assert not torch.equal(first, gates.sample(seed=4, step=7))
    # Other gates of the same numbers are drawn alike.
    fewer = Gates(SHAPE, ("layers",))
    assert torch.equal(fewer.sample(seed=3, step=7), first[: len(fewer.log_alpha)])


def test_all_gates_begin_open_and_can_learn() -> None:
    gates = Gates(SHAPE)
    assert bool((gates.decide() == 1).all())
    gates.sample(seed=0, step=1).sum().backward()
    gradient = gates.log_alpha.grad
    assert gradient is not None
    assert bool((gradient > 0).any())
    assert bool((gradient >= 0).all())


def test_the_ends_of_a_stack_have_no_gate() -> None:
    gates = Gates(SHAPE, ("layers",))
    with torch.no_grad():
        gates.log_alpha.fill_(-20)
    tables = gates.split(gates.decide())
    assert tables["encoder_layers"].tolist() == [1, 0, 1]
    assert tables["decoder_layers"].tolist() == [1, 0, 0, 1]
    with pytest.raises(ValueError, match="nothing could be shut"):
        Gates(replace(SHAPE, encoder_layers=2, decoder_layers=2), ("layers",))
    with pytest.raises(ValueError, match="dimensions must be some of layers, heads, ffn, hidden"):
        Gates(SHAPE, ("depth",))


def test_layers_can_share_heads() -> None:
    gates = Gates(SHAPE, ("heads", "ffn"), shared_heads=True)
    assert len(gates.log_alpha) == 3 + 3 + 3 * 10 + 4 * 10
    tables = gates.split(gates.sample(0, 1))
    assert tables["decoder_heads"].shape == (4, 3)
    assert bool((tables["decoder_heads"] == tables["decoder_heads"][0]).all())
    assert not bool((tables["decoder_ffn"] == tables["decoder_ffn"][0]).all())


@pytest.mark.parametrize("name", [*SHAPES])
@given(data=st.data())
@settings(max_examples=20)
def test_parameters_are_those_of_the_shape(name: str, data: st.DataObject) -> None:
    """With gates of 0 and 1 that leave a shape, the number is exactly that of the shape."""
    shape = SHAPES[name]
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    groups, inner, hidden = (
        int(rng.integers(1, size + 1)) for size in (shape.groups, shape.inner_size, 12)
    )
    sizes: dict[str, Any] = {"hidden_size": hidden, "inner_size": inner, "groups": groups}
    sizes["heads"] = 2 * groups

    def draw(count: int, size: int) -> torch.Tensor:
        row = torch.zeros(size)
        row[torch.from_numpy(rng.permutation(size)[:count])] = 1
        return row

    tables = {"hidden": draw(hidden, 12)}
    for stack in ("encoder", "decoder"):
        layers = getattr(shape, f"{stack}_layers")
        if not layers:
            continue
        sizes[f"{stack}_layers"] = int(rng.integers(2, layers + 1))
        inside = draw(sizes[f"{stack}_layers"] - 2, layers - 2)
        tables[f"{stack}_layers"] = torch.cat([torch.ones(1), inside, torch.ones(1)])
        tables[f"{stack}_heads"] = torch.stack([draw(groups, 3) for _ in range(layers)])
        tables[f"{stack}_ffn"] = torch.stack([draw(inner, 10) for _ in range(layers)])
    expected = count_parameters(replace(shape, **sizes)).distinct
    assert float(SizePolynomial(shape).count(tables)) == expected


def test_expected_parameters_are_the_mean_over_draws() -> None:
    gates = Gates(SHAPE)
    with torch.no_grad():
        gates.log_alpha.copy_(torch.linspace(-2, 2, len(gates.log_alpha)))
    polynomial = SizePolynomial(SHAPE)
    expected = float(polynomial.count(gates.split(gates.find_open().detach())))
    with torch.no_grad():
        drawn = [(gates.sample(0, step) > 0).double() for step in range(1, 2001)]
        counts = torch.stack([polynomial.count(gates.split(one)) for one in drawn])
    spread = float(counts.std()) / len(counts) ** 0.5
    assert abs(float(counts.mean()) - expected) < 4 * spread


def test_large_shapes_are_counted_exactly() -> None:
    """OpenBA's 15B: no float32 in between."""
    shape = Shape(
        encoder_layers=12, decoder_layers=36, hidden_size=4096, heads=40, groups=40, head_size=128,
        inner_size=11008, vocabulary_size=250368, qkv_bias=True, output_bias=True, norm_bias=True,
        head_bias=True,
    )  # fmt: skip
    assert SizePolynomial(shape).whole == 14_567_703_040
    gates = Gates(shape)
    assert (
        float(SizePolynomial(shape).count(gates.split(gates.decide().detach()))) == 14_567_703_040
    )
