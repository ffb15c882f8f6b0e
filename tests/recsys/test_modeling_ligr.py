"""LiGR: its blocks as they are written, and that padding is nothing."""

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lmcore.recsys import LiGRConfig, LiGRModel


def make_model(length: int, **options: Any) -> LiGRModel:
    torch.manual_seed(0)
    config = LiGRConfig(item_count=9, max_length=length, hidden_size=4, **options)
    model = LiGRModel(config)
    model.train(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def define(model: LiGRModel, items: Tensor) -> Tensor:
    """The blocks, one position and one head after the other, for windows without padding."""
    heads = model.config.num_attention_heads
    x = model.item_emb(items) + model.pos_emb.weight
    block: Any
    for block in model.blocks:
        q, k, v = block.projection(block.attention_layernorm(x)).chunk(3, -1)
        rows = []
        for p in range(len(items)):
            parts = []
            for query, keys, values in zip(
                q[p].chunk(heads), k.chunk(heads, 1), v.chunk(heads, 1), strict=True
            ):
                scores = torch.stack([query @ keys[j] for j in range(p + 1)]) / len(query) ** 0.5
                parts.append(scores.softmax(0) @ values[: p + 1])
            rows.append(torch.cat(parts))
        gate = torch.sigmoid(block.attention_gate(x))
        x = x + gate * block.output(torch.stack(rows))
        normal = block.forward_layernorm(x)
        left, right = block.inner.weight.chunk(2)
        inner = functional.silu(normal @ left.T) * (normal @ right.T)
        x = x + torch.sigmoid(block.forward_gate(x)) * (inner @ block.outer.weight.T)
    return torch.as_tensor(x)


def test_blocks_are_their_definition() -> None:
    items = torch.tensor([3, 9, 1, 3])
    for heads in (1, 2):
        model = make_model(4, num_attention_heads=heads)
        with torch.no_grad():
            expected = define(model, items)
            torch.testing.assert_close(model(items[None])[0], expected, atol=1e-4, rtol=1e-4)
            packed = model.forward_packed(items[None], torch.arange(4))
            torch.testing.assert_close(packed, expected, atol=1e-4, rtol=1e-4)


def test_features_do_not_depend_on_padding() -> None:
    """With the positions of the shorter window, the same items have the same features."""
    long, short = make_model(6), make_model(3)
    weights = long.state_dict()
    short.load_state_dict(weights | {"pos_emb.weight": weights["pos_emb.weight"][3:]})
    with torch.no_grad():
        padded = long(torch.tensor([[0, 0, 0, 3, 9, 1]]))
        torch.testing.assert_close(padded[:, 3:], short(torch.tensor([[3, 9, 1]])))
    assert padded.isfinite().all()


def test_closed_gates_leave_the_embeddings() -> None:
    model = make_model(3)
    block: Any
    for block in model.blocks:
        for gate in (block.attention_gate, block.forward_gate):
            torch.nn.init.zeros_(gate.weight)
            torch.nn.init.constant_(gate.bias, -200)
    items = torch.tensor([[3, 9, 1]])
    with torch.no_grad():
        torch.testing.assert_close(model(items), model.item_emb(items) + model.pos_emb.weight)


@pytest.mark.parametrize("way", ["padded", "packed"])
def test_weights_of_attention_are_dropped_in_training_alone(way: str) -> None:
    model = make_model(4, dropout=0.25)
    sequences = torch.tensor([[0, 1, 2, 3]])
    real = functional.scaled_dot_product_attention
    for training in (True, False):
        model.train(training)
        with mock.patch.object(functional, "scaled_dot_product_attention", wraps=real) as attend:
            if way == "padded":
                model(sequences)
            else:
                model.forward_packed(sequences, torch.tensor([3]))
        shares = {call.kwargs["dropout_p"] for call in attend.call_args_list}
        assert shares == {0.25 * training}
