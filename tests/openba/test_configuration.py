"""Sizes of OpenBA: released files, derived sizes, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

import lmcore.openba
from lmcore.cost.configs import apply_swiglu_rule
from lmcore.openba import OpenBAConfig
from tiny_openba import SIZES, make_config

assert lmcore.openba.__doc__


@pytest.mark.parametrize(
    ("size", "inner"), [(16384, 11008), (6912, 4608), (1, 0), (384, 256), (385, 256), (386, 512)]
)
def test_the_inner_size_is_two_thirds_rounded_up(size: int, inner: int) -> None:
    assert apply_swiglu_rule(size) == inner
    if inner:
        assert OpenBAConfig(ffn_hidden_size=size).inner_size == inner
        assert OpenBAConfig(ffn_hidden_size=size, swiglu_rule=True).inner_size == inner
    assert OpenBAConfig(ffn_hidden_size=size, swiglu_rule=False).inner_size == size


def test_released_names_of_depths_are_read() -> None:
    config = OpenBAConfig(num_layers=2, num_decoder_layers=5)
    assert (config.encoder_layers, config.decoder_layers) == (2, 5)
    assert (config.num_layers, config.num_decoder_layers, config.num_hidden_layers) == (2, 5, 2)
    assert OpenBAConfig(num_layers=3).decoder_layers == 3
    assert OpenBAConfig(num_layers=3, num_decoder_layers=None).decoder_layers == 3


def test_two_names_must_agree() -> None:
    with pytest.raises(Exception, match="encoder_layers and num_layers are the same: got 3 and 2"):
        OpenBAConfig(encoder_layers=3, num_layers=2, num_decoder_layers=2)


def test_the_decoder_knows_its_own_depth() -> None:
    """`generate` makes its cache from this."""
    config = make_config(encoder_layers=2, decoder_layers=5)
    assert config.get_text_config(decoder=True).num_hidden_layers == 5
    assert config.get_text_config(encoder=True).num_hidden_layers == 2


def test_a_saved_configuration_is_read_again(tmp_path: Path) -> None:
    config = make_config(shift_positions=True, rope_theta=500.0)
    config.save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    assert type(read) is OpenBAConfig
    assert {name: getattr(read, name) for name in SIZES} == SIZES
    assert (read.shift_positions, read.rope_theta) == (True, 500.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be from 1 to 2147483647: got 0"),
        ({"hidden_size": -1}, "hidden_size must be from 1"),
        ({"num_heads": 2**31}, "num_heads must be from 1 to 2147483647: got 2147483648"),
        ({"kv_channels": 7}, "kv_channels must be even: got 7"),
        ({"encoder_layers": 10**9}, "encoder_layers must be from 1 to 1000: got 1000000000"),
        ({"decoder_layers": 0}, "decoder_layers must be from 1 to 1000: got 0"),
        ({"ffn_hidden_size": 1, "swiglu_rule": True}, "ffn_hidden_size 1 leaves no inner layer"),
        ({"hidden_dropout": 1.0}, r"hidden_dropout must be in \[0, 1\): got 1.0"),
        ({"attention_dropout": float("nan")}, r"attention_dropout must be in \[0, 1\): got nan"),
        ({"rope_theta": 0}, "rope_theta must be above 0 and finite: got 0"),
        ({"layer_norm_eps": float("inf")}, "layer_norm_eps must be above 0 and finite: got inf"),
        ({"eos_token_id": 61}, "eos_token_id must be an id below vocab_size 61: got 61"),
        ({"eos_token_id": [1, -1]}, "eos_token_id must be an id below vocab_size 61: got -1"),
        ({"pad_token_id": 99}, "pad_token_id must be an id below vocab_size 61: got 99"),
        ({"num_heads": 2.5}, "num_heads"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        make_config(**change)


@pytest.mark.parametrize("value", ["1e400", "NaN", '"a"', "[]", "-1", "null", "4294967296"])
def test_a_wild_file_is_refused(tmp_path: Path, value: str) -> None:
    text = json.dumps({"model_type": "openba", **SIZES, "hidden_size": "X"})
    (tmp_path / "config.json").write_text(text.replace('"X"', value))
    with pytest.raises(Exception, match="hidden_size"):
        AutoConfig.from_pretrained(tmp_path)
