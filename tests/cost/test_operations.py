"""Operations of a shape, against those that torch counts when a model runs."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from lmcore.cost import Shape, count_operations
from lmcore.cost.configs import make_shape
from tiny_openba import make_model

SMALL: dict[str, Any] = {
    "encoder_layers": 2, "decoder_layers": 3, "hidden_size": 8, "heads": 4, "groups": 2,
    "head_size": 3, "inner_size": 5, "vocabulary_size": 11,
}  # fmt: skip


def hidden_scores(shape: Shape, tokens: int) -> int:
    """Operations for scores of keys that lie behind their query, which a plain kernel computes."""
    pairs = tokens * tokens - tokens * (tokens + 1) // 2
    return 4 * shape.heads_size * shape.decoder_layers * pairs


def run(model: Any, *, backward: bool, **inputs: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        output = model(**inputs, use_cache=False)
        if backward:
            output.loss.backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(("rows", "source", "target"), [(1, 1, 1), (1, 9, 7), (3, 5, 12)])
def test_openba(rows: int, source: int, target: int) -> None:
    model = make_model(attn_implementation="eager")
    shape = make_shape(model.config.to_dict())
    counted = count_operations(shape, source, target)
    ids, labels = torch.ones(2, rows, max(source, target), dtype=torch.long)
    inputs = {"input_ids": ids[:, :source], "labels": labels[:, :target]}
    more = hidden_scores(shape, target)
    assert run(model, backward=False, **inputs) == rows * (counted.forward + more)
    assert run(model, backward=True, **inputs) == rows * (counted.training + 3 * more)


def test_a_decoder_alone() -> None:
    config = LlamaConfig(
        vocab_size=97, hidden_size=48, intermediate_size=76, num_hidden_layers=3,
        num_attention_heads=6, num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    shape = make_shape(config.to_dict())
    ids = torch.ones(2, 10, dtype=torch.long)
    found = run(LlamaForCausalLM(config), backward=False, input_ids=ids, labels=ids)
    rotations = 2 * 2 * 10 * (48 // 6 // 2)  # the table of angles is a product of matrices there
    counted = count_operations(shape, 0, 10)
    assert found - rotations <= 2 * (counted.forward + hidden_scores(shape, 10)) <= found


def test_tokens_make_up_a_sample() -> None:
    shape = Shape(**SMALL)
    counted = count_operations(shape, 9, 7)
    assert counted.forward == 9 * counted.source_token + 7 * counted.target_token
    assert counted.training == 3 * counted.forward
    output = 2 * shape.vocabulary_size * shape.hidden_size
    assert counted.recomputed == counted.forward - 7 * output
    # The last of T tokens sees all T; a token sees (T + 1) / 2 of them as a mean.
    assert counted.cached_token - counted.target_token == 3 * 4 * 12 * (7 - 4)


@pytest.mark.parametrize(
    ("changes", "lengths", "message"),
    [
        ({}, (0, 7), "source_tokens must be from 1 to 2147483647: got 0"),
        ({}, (9, 2**31), "target_tokens must be from 1 to 2147483647: got 2147483648"),
        ({"encoder_layers": 0}, (9, 7), "source_tokens must be 0, as there are no such layers"),
        ({"decoder_layers": 0}, (9, 7), "target_tokens must be 0, as there are no such layers"),
    ],
)
def test_lengths_that_do_not_fit(
    changes: dict[str, int], lengths: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        count_operations(Shape(**{**SMALL, **changes}), *lengths)


def test_an_encoder_alone() -> None:
    counted = count_operations(Shape(**{**SMALL, "decoder_layers": 0}), 9, 0)
    assert (counted.target_token, counted.cached_token) == (0, 0)
    assert counted.forward == 9 * counted.source_token
