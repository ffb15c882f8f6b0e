"""FMLP-Rec: its filter is a circular convolution, and prefixes are windows of their own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmcore.recsys import FMLPConfig, FMLPModel
from lmcore.recsys.backbone import cut_prefixes
from lmcore.recsys.modeling_fmlp import FilterLayer


def make_layer(length: int) -> FilterLayer:
    torch.manual_seed(0)
    layer = FilterLayer(FMLPConfig(item_count=9, max_length=length, hidden_size=4)).eval()
    torch.nn.init.normal_(layer.weight)
    return layer


@pytest.mark.parametrize("length", [1, 2, 5, 6, 50])
def test_filter_is_a_circular_convolution(length: int) -> None:
    layer = make_layer(length)
    x = torch.randn(3, length, 4)
    with torch.no_grad():
        kernel = torch.fft.irfft(torch.view_as_complex(layer.weight), n=length, dim=0)
        convolved = torch.stack(
            [
                sum(kernel[(p - j) % length] * x[:, j] for j in range(length))  # type: ignore[misc]
                for p in range(length)
            ],
            1,
        )
        expected = layer.layernorm(x + convolved)
        torch.testing.assert_close(layer(x, False), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(layer(x, True), expected[:, -1:], atol=1e-4, rtol=1e-4)


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), max_size=4))
def test_prefixes(rows: list[list[int]]) -> None:
    sequences = torch.tensor(rows, dtype=torch.long).view(len(rows), 4)
    made = cut_prefixes(sequences, torch.arange(4 * len(rows)))
    expected = [[0] * (3 - p) + row[: p + 1] for row in rows for p in range(4)]
    assert made.tolist() == expected


def test_the_padding_row_is_zero() -> None:
    model = FMLPModel(FMLPConfig(item_count=9, max_length=4))
    assert model.item_emb.weight[0].abs().max() == 0
    assert model.item_emb.weight[1:].std().item() == pytest.approx(0.02, rel=0.2)
