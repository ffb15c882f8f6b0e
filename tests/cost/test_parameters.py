"""Parameters of a shape, against the specification and against models without memory."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
)

from lmcore.cost import count_parameters
from lmcore.cost.configs import make_shape
from lmcore.cost.parameters import PARTS, parameter_bytes

V1 = {
    "model_type": "openba", "hidden_size": 4096, "kv_channels": 128, "num_heads": 40,
    "ffn_hidden_size": 16384, "add_qkv_bias": True, "add_lm_head_bias": True,
    "tie_word_embeddings": False,
}  # fmt: skip
V2 = {
    **V1, "hidden_size": 2560, "num_heads": 20, "ffn_hidden_size": 6912, "swiglu_rule": False,
}  # fmt: skip
# Section 3 of the specification: with one table for embedding and output layer.
TOTALS = [
    (V1, 12, 36, 250368, 14_567_703_040),
    (V1, 12, 36, 250880, 14_569_800_704),
    (V1, 10, 30, 250368, 12_310_714_880),
    (V1, 8, 27, 250368, 10_963_032_576),
    (V1, 8, 24, 250368, 10_053_726_720),
    (V2, 8, 24, 250240, 3_808_598_400),
    (V2, 8, 24, 250368, 3_808_926_208),
    (V2, 8, 24, 100_000, 3_423_833_760),
    (V2, 8, 24, 120_192, 3_475_545_472),
]


@pytest.mark.parametrize(("config", "encoders", "decoders", "size", "total"), TOTALS)
def test_totals_of_the_specification(
    config: dict[str, Any], encoders: int, decoders: int, size: int, total: int
) -> None:
    depths = {"num_layers": encoders, "num_decoder_layers": decoders, "vocab_size": size}
    counted = count_parameters(make_shape({**config, **depths}))
    assert counted.distinct == total
    assert counted.total == total + size * config["hidden_size"]
    tied = count_parameters(make_shape({**config, **depths, "tie_word_embeddings": True}))
    assert tied.total == tied.distinct == total


def test_bytes_of_the_released_files() -> None:
    assert parameter_bytes(14_567_703_040, "bfloat16") == 29_135_406_080
    assert parameter_bytes(14_569_800_704, "float16") == 29_139_601_408
    assert [parameter_bytes(3, name) for name in ("float32", "int8", "int4")] == [12, 3, 2]
    with pytest.raises(ValueError, match=r"^dtype must be one of float32, .*: got 'int3'$"):
        parameter_bytes(1, "int3")


def test_layers_of_the_specification() -> None:
    counted = count_parameters(make_shape({**V1, "num_layers": 12, "num_decoder_layers": 36}))
    assert (counted.encoder_layer, counted.decoder_layer) == (219_188_224, 303_101_952)


# As many parameters as the models of transformers have.

LLAMA = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 76, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10,
}  # fmt: skip
T5 = {"vocab_size": 97, "d_model": 48, "d_kv": 10, "d_ff": 76, "num_layers": 2, "num_heads": 6}
CASES: dict[str, dict[str, Any]] = {
    "V1": {
        **V1, "hidden_size": 32, "kv_channels": 12, "num_heads": 4, "ffn_hidden_size": 500,
        "vocab_size": 99, "encoder_layers": 2, "decoder_layers": 3,
    },
    "biases": {
        **V2, "hidden_size": 32, "kv_channels": 12, "num_heads": 4, "ffn_hidden_size": 40,
        "vocab_size": 99, "encoder_layers": 3, "decoder_layers": 1, "add_ffn_bias": True,
        "tie_word_embeddings": True,
    },
    "defaults": {"model_type": "openba"},
    "t5": {"model_type": "t5", **T5},
    "t5 v1.1": {
        "model_type": "t5", **T5, "num_decoder_layers": 4, "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
    "t5 defaults": {"model_type": "t5"},
    "mt5": {"model_type": "mt5", **T5},
    "umt5": {"model_type": "umt5", **T5},
    "llama": {"model_type": "llama", **LLAMA},
    "llama biases": {"model_type": "llama", **LLAMA, "attention_bias": True, "mlp_bias": True},
    "llama one group": {
        "model_type": "llama", **LLAMA, "num_key_value_heads": None, "head_dim": None,
        "tie_word_embeddings": True,
    },
    "mistral": {"model_type": "mistral", **LLAMA},
    "qwen2": {"model_type": "qwen2", **LLAMA, "head_dim": 8},
    "qwen3": {"model_type": "qwen3", **LLAMA},
    "gpt2": {"model_type": "gpt2", "vocab_size": 97, "n_embd": 48, "n_head": 6, "n_layer": 2},
    "gpt2 inner": {"model_type": "gpt2", "n_positions": 7, "n_inner": 10, "n_layer": 2},
    "bert": {"model_type": "bert", "vocab_size": 97, "hidden_size": 48, "num_attention_heads": 6},
}  # fmt: skip


def make_config(fields: dict[str, Any]) -> PreTrainedConfig:
    import lmcore.openba  # noqa: F401

    own = {name: value for name, value in fields.items() if name != "model_type"}
    made: PreTrainedConfig = AutoConfig.for_model(fields["model_type"], **own)
    return made


def count_model(config: PreTrainedConfig) -> int:
    """Parameters of a model that has no memory, each once."""
    made: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        if config.model_type == "bert":
            model = AutoModel.from_config(config, add_pooling_layer=False)
        else:
            model = made.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_models_have_as_many(name: str) -> None:
    counted = count_parameters(make_shape(CASES[name]))
    # transformers makes one table of two in each T5, whatever its configuration says, and takes
    # them apart again where the weights that it loads differ.
    expected = counted.distinct if name == "t5 v1.1" else counted.total
    assert expected == count_model(make_config(CASES[name]))
    assert all(getattr(counted, part) >= 0 for part in PARTS)


@pytest.mark.parametrize("name", CASES)
def test_saved_configurations_are_read(name: str) -> None:
    """Their fields have other names, and defaults stand there."""
    saved = make_config(CASES[name]).to_dict()
    if name == "t5 v1.1":  # see above
        saved["tie_word_embeddings"] = False
    assert make_shape(saved) == make_shape(CASES[name])


def test_the_released_configurations() -> None:
    for config, depths in ((V1, (12, 36)), (V2, (8, 24))):
        fields = {**config, "num_layers": depths[0], "num_decoder_layers": depths[1]}
        assert count_parameters(make_shape(fields)).total == count_model(make_config(fields))
