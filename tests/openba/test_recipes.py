"""Recipes of OpenBA: the values of the paper, and what is refused."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from lmcore.openba import OpenBAConfig
from lmcore.openba.recipes import (
    METRICS,
    RECIPES,
    TrainConfig,
    bilingual_flan,
    chat,
    code,
    instruction_generation,
    length_adaptation,
    tiny,
    tool_retrieval,
    ul2,
)
from lmcore.openba.stages import STAGES
from lmcore.training.config import change, config_from_dict, config_to_dict
from lmcore.training.optimizer import Optimizer


def test_recipes_go_through_json() -> None:
    """In the order of the help; each is of a stage, and each stage has the paper's recipe."""
    assert list(RECIPES)[:4] == ["tiny", "tiny_length_adaptation", "tiny_flan", "ul2"]
    assert list(RECIPES)[3:] == list(STAGES)
    for name, recipe in RECIPES.items():
        config = recipe()
        again = config_from_dict(TrainConfig, json.loads(json.dumps(config_to_dict(config))))
        assert again == config
        assert config.stage == name or name.startswith("tiny")
        assert config.loop.metric in METRICS
        if config.stage == "ul2":
            assert config.denoisers == ("R3", "R8", "S", "X3", "X8", "X64_15", "X64_50")


def test_the_second_stage_has_the_values_of_the_paper() -> None:
    """Section 7 of the specification, column II: halves of 1024, 4e-5 to 1e-5 in 25k steps."""
    config = length_adaptation()
    assert (config.stage, config.denoisers, config.pairs) == ("length_adaptation", ("S_50",), False)
    # 1024 tokens of each half, with prefix, sentinel and end; and with sentinel and end.
    assert (config.text_length, config.encoder_length, config.decoder_length) == (2048, 1027, 1026)
    assert (config.batch_size, config.micro_batch_size) == (1024, 4)
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (4e-5, (0.9, 0.95), 0.1)
    made = Optimizer(nn.Linear(1, 1), optimizer, config.schedule)
    shares = [made.get_lr_share(step) for step in (1, 12_501, 25_001, 30_000)]
    assert shares == pytest.approx([1, 0.625, 0.25, 0.25])


def test_the_third_stage_has_the_values_of_the_paper() -> None:
    """Section 7 of the specification, column III."""
    config = bilingual_flan()
    assert (config.stage, config.pairs) == ("bilingual_flan", True)
    assert (config.encoder_length, config.decoder_length) == (1024, 256)
    assert (config.batch_size, config.micro_batch_size) == (1024, 16)
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (7e-6, (0.9, 0.999), 0.01)
    assert optimizer.clip_norm == 1.0
    made = Optimizer(nn.Linear(1, 1), optimizer, config.schedule)
    shares = [made.get_lr_share(step) for step in (1, 251, 501, 100_000)]
    assert shares == pytest.approx([0, 0.5, 1, 1])
    tokens = config.loop.steps * config.batch_size * (1024 + 256)  # type: ignore[operator]
    assert tokens == pytest.approx(40e9, rel=1e-4)


@pytest.mark.parametrize(
    ("recipe", "target"),
    [(chat, 1024), (code, 1024), (instruction_generation, 256), (tool_retrieval, 256)],
)
def test_fine_tunes_follow_the_third_stage(recipe: Callable[[], TrainConfig], target: int) -> None:
    config = recipe()
    assert (config.encoder_length, config.decoder_length) == (1024, target)
    assert config.pairs
    assert config.optimizer == bilingual_flan().optimizer
    assert STAGES[recipe.__name__] == ("bilingual_flan",)


def test_ul2_has_the_values_of_the_paper() -> None:
    """Section 7 of the specification, column I, and section 2.1."""
    config = ul2()
    assert (config.encoder_length, config.decoder_length, config.text_length) == (570, 380, 568)
    assert (config.batch_size, config.micro_batch_size, config.tied) == (4096, 16, True)
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.betas, optimizer.eps) == (1e-4, (0.9, 0.95), 1e-8)
    assert (optimizer.weight_decay, optimizer.clip_norm) == (0.1, 1.0)
    assert config.shape.dropout == 0.1
    # By the schedule itself: a rise of 2,000 steps, and 1e-5 after 100,000 in all and on.
    made = Optimizer(nn.Linear(1, 1), optimizer, config.schedule)
    shares = [made.get_lr_share(step) for step in (1, 1001, 2001, 51_001, 100_001, 120_000)]
    assert shares == pytest.approx([0, 0.5, 1, 0.55, 0.1, 0.1])
    shape = config.shape
    sizes = (shape.hidden_size, shape.heads, shape.kv_channels, shape.ffn_hidden_size)
    assert sizes == (4096, 40, 128, 16_384)
    assert (shape.encoder_layers, shape.decoder_layers) == (12, 36)
    inner = OpenBAConfig(ffn_hidden_size=shape.ffn_hidden_size, swiglu_rule=shape.swiglu_rule)
    assert inner.inner_size == 11_008
    assert -(-250_203 // (128 * shape.tensor_parallel)) * 128 * shape.tensor_parallel == 250_368


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1 and at most 1048576: got 0"),
        ({"encoder_length": 3}, "encoder_length must be at least 4"),
        ({"decoder_length": 2}, "decoder_length must be at least 3"),
        ({"denoisers": ()}, "denoisers must be some of R3, R8, S, X3, .*, each once: got"),
        ({"denoisers": ("R3", "R3")}, r"each once: got \['R3', 'R3'\]"),
        ({"denoisers": ("R3", "Z")}, r"each once: got \['R3', 'Z'\]"),
        ({"validation_denoisers": ("S_5",)}, "validation_denoisers must be some of R3, .*S_50, ea"),
        ({"pairs": True}, "decoder_length must be given where data are pairs: got none"),
        ({"text_tokens": 1}, "text_tokens must be at least 2"),
        ({"stage": "flan"}, "stage must be "),
        ({"shape.kv_channels": 3}, "kv_channels must be even: got 3"),
        ({"shape.ffn_hidden_size": 1}, "ffn_hidden_size must be at least 2"),
        ({"shape.dropout": 1.0}, "shape.dropout must be at least 0 and below 1: got 1.0"),
        ({"loop.metric": "f1"}, "loop.metric must be loss or loss_R3 or .*: got 'f1'"),
        ({"loop.metric_mode": "max"}, "loop.metric_mode must be min"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(tiny(), changes)


def test_recipes_are_frozen() -> None:
    with pytest.raises(AttributeError):
        ul2().batch_size = 1  # type: ignore[misc]
