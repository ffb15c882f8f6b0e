"""Recipes: the paper's values, and how many parameters they train."""

import json
from typing import Any

import pytest
import torch
import transformers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from commands import check_line, run_here
from lmcore.detox.recipes import RECIPES, TrainConfig, gpt2_xl, released, tiny
from lmcore.training.config import config_from_dict, config_to_dict
from lmcore.training.models import add_lora


def make_llama(hidden: int, layers: int, heads: int, inner: int) -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=inner,
        )
    )  # fmt: skip


# Of each recipe its architecture, and the parameters that are trained (section 4.3).
TRAINED: dict[str, tuple[Any, int]] = {
    "gpt2_xl": (
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=1600, n_layer=48, n_head=25)), 2_457_600,
    ),
    "flan_t5_xl": (
        lambda: T5ForConditionalGeneration(
            T5Config(
                d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_heads=32,
                feed_forward_proj="gated-gelu",
            )
        ),
        4_718_592,
    ),
    "mistral_7b": (lambda: MistralForCausalLM(MistralConfig()), 3_407_872),
    "llama2_7b": (lambda: make_llama(4096, 32, 32, 11_008), 4_194_304),
    "llama2_13b": (lambda: make_llama(5120, 40, 40, 13_824), 6_553_600),
    "alpaca_7b": (lambda: make_llama(4096, 32, 32, 11_008), 4_194_304),
    "llama_33b": (lambda: make_llama(6656, 60, 52, 17_920), 12_779_520),
}  # fmt: skip


def test_recipes_have_the_values_of_the_paper() -> None:
    assert list(RECIPES) == ["tiny", *TRAINED]
    for name, recipe in RECIPES.items():
        config = recipe()
        again = config_from_dict(TrainConfig, json.loads(json.dumps(config_to_dict(config))))
        assert again == config
        if name == "tiny":
            continue
        lora = config.lora
        assert (lora.rank, lora.alpha, lora.dropout) == (8, 16, 0.05)
        assert (config.optimizer.lr, config.schedule.kind, config.warmup_share) == (
            5e-4, "cosine", 0.03,
        )  # fmt: skip
        assert (config.epochs, config.batch_size, config.optimizer.weight_decay) == (10, 64, 0)
        assert (config.max_chain_tokens, config.max_template_tokens) == (280, 250)
        term = config.contrastive
        assert (term.max_continuation_tokens, term.anchor_tokens) == (24, 20)
        assert (term.weight, term.temperature, term.top_p) == (1, 1, 0.9)
        assert config.device.precision == "bfloat16"
    theirs = released(gpt2_xl()).contrastive
    assert (theirs.weight, theirs.pooling, theirs.refresh_every_steps) == (0.5, "released", 1)
    assert tiny().lora.rank == 0


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.filterwarnings("ignore")
def test_trained_parameters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is stored, and nothing is drawn."""
    make, expected = TRAINED[name]
    monkeypatch.setattr(transformers.PreTrainedModel, "init_weights", lambda self: None)
    with torch.device("meta"):
        model = add_lora(make(), RECIPES[name]().lora)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == expected


def test_the_command() -> None:
    code, output, _ = run_here("detox", "recipe", "gpt2_xl", "--set", "contrastive.weight=0.5")
    assert code == 0
    assert json.loads(output)["contrastive"]["weight"] == 0.5
    code, output, _ = run_here("detox", "recipe", "tiny", "--released")
    assert json.loads(output) == config_to_dict(released(tiny()))
    check_line(run_here("detox", "recipe", "gpt3"), "RECIPE must be one of tiny, gpt2_xl")
    check_line(run_here("detox", "recipe", "tiny", "--set", "speed=1"), "speed")
