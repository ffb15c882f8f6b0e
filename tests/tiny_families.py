"""Small random models of all families, plans for them, and what pruning means, by reshaping."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

import lmcore.openba  # noqa: F401
from lmcore._manifest import write_manifest
from lmcore.compression.families import find_family
from lmcore.compression.plan import (
    Plan,
    Stage,
    find_kept,
    find_sizes,
)
from lmcore.cost import read_shape
from lmcore.training.folder import Recipe
from tiny_openba import SIZES

LLAMA = {
    "vocab_size": 41, "hidden_size": 48, "intermediate_size": 20, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 6, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
T5 = {
    "vocab_size": 41, "d_model": 24, "d_kv": 6, "d_ff": 20, "num_layers": 3, "num_heads": 4,
    "num_decoder_layers": 4, "decoder_start_token_id": 0, "dropout_rate": 0.0,
}  # fmt: skip
GPT2 = {
    "vocab_size": 41, "n_positions": 16, "n_embd": 24, "n_layer": 4, "n_head": 4,
    "bos_token_id": 0, "eos_token_id": 0, "n_inner": None,
}  # fmt: skip
BERT = {
    "vocab_size": 41, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 20, "max_position_embeddings": 16,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "openba": {"model_type": "openba", **SIZES, "encoder_layers": 3, "decoder_layers": 4},
    "openba v1": {
        "model_type": "openba", **SIZES, "swiglu_rule": True, "ffn_hidden_size": 300,
        "add_ffn_bias": False,
    },
    "t5": {"model_type": "t5", **T5},
    "t5 v1.1": {
        "model_type": "t5", **T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    },
    "mt5": {"model_type": "mt5", **T5, "tie_word_embeddings": False},
    "umt5": {"model_type": "umt5", **T5},
    "llama": {"model_type": "llama", **LLAMA, "attention_bias": True, "mlp_bias": True},
    "llama tied": {"model_type": "llama", **LLAMA, "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", **LLAMA},
    "qwen2": {"model_type": "qwen2", **LLAMA, "use_sliding_window": True, "sliding_window": 3,
              "max_window_layers": 2},
    "qwen3": {"model_type": "qwen3", **LLAMA},
    "gpt2": {"model_type": "gpt2", **GPT2},
    "bert": {"model_type": "bert", **BERT},
}  # fmt: skip


def auto_class(config: Any) -> Any:
    if config["model_type"] == "bert":
        return AutoModel
    encoder = config["model_type"] in ("openba", "t5", "mt5", "umt5")
    return AutoModelForSeq2SeqLM if encoder else AutoModelForCausalLM


def save_model(name: str, folder: Path) -> Path:
    """A model whose weights all matter; what is tied by habit alone is untied."""
    fields = {key: value for key, value in CONFIGS[name].items() if key != "model_type"}
    torch.manual_seed(0)
    config = AutoConfig.for_model(CONFIGS[name]["model_type"], **fields)
    model = auto_class(CONFIGS[name]).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    if CONFIGS[name].get("tie_word_embeddings") is False and "5" in name and "q" not in name:
        state = load_file(folder / "model.safetensors")
        state["lm_head.weight"] = torch.randn_like(state["shared.weight"])
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    config = json.loads((folder / "config.json").read_text())
    return config, load_file(folder / "model.safetensors")


def load_model(
    folder: Path, config: dict[str, Any], state: dict[str, torch.Tensor], dtype: Any = torch.float32
) -> Any:
    """The model that a state is, loaded as anybody would; nothing lacks and nothing is too much."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: x.contiguous() for name, x in state.items()}, folder / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    model, found = auto_class(config).from_pretrained(folder, output_loading_info=True, dtype=dtype)
    # BERT's pooler is no part of some models, and is in this one.
    assert {key: [*value] for key, value in found.items() if value} == {}
    return model.eval()


def run_model(model: Any, length: int = 9) -> torch.Tensor:
    """Logits, or states of an encoder alone."""
    ids = torch.arange(3, 3 + 2 * length).reshape(2, length) % 7 + 3
    given: dict[str, Any] = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = ids.flip(1)[:, :6]
    with torch.no_grad():
        found = model(**given)
    result: torch.Tensor = found[0]
    return result


def make_plan(folder: Path, sizes: dict[str, int], seed: int = 0, stages: int = 1) -> Plan:
    """A random plan: of each dimension so many, in several stages, layers first and last kept."""
    rng = np.random.default_rng(seed)
    shape = read_shape(folder)
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    plan = Plan(model_type=model_type, shape=shape)
    shared = find_family(model_type).shared_heads

    def draw(old: tuple[int, ...], size: int) -> list[int]:
        return sorted(rng.choice(old, size, replace=False).tolist())

    for stage in range(1, stages + 1):
        kept, values = find_kept(plan), dict[str, Any]()
        for name, full in find_sizes(shape).items():
            key = name if name.endswith(("layers", "hidden", "vocabulary")) else name[8:]
            if key not in sizes or not full:
                continue
            size = full - (full - sizes[key]) * stage // stages
            old = getattr(kept, name)
            if isinstance(old, tuple):
                values[name] = draw(old, size)
                continue
            stack = name[:7]
            layers = values.get(f"{stack}_layers", getattr(kept, f"{stack}_layers"))
            first = draw(old[layers[0]], size) if layers else []
            values[name] = {
                layer: first if shared and key == "heads" else draw(old[layer], size)
                for layer in layers
            }
        if "vocabulary" in values:  # special tokens and what `run_model` reads
            values["vocabulary"] = sorted({*range(10), *values["vocabulary"]})
        plan = replace(plan, stages=(*plan.stages, Stage(**values)))
    return plan


# What the axes of tensors are: D hidden, G groups of heads, F inner, V vocabulary; r queries of a
# group, k the size of a head; numbers and `*` are whole.
_LINEAR = {
    "openba": {
        r"(shared_embedding|embed_tokens|lm_head)\.weight": "V D", r"lm_head\.bias": "V",
        r"layernorm\.\w+": "D", r"qkv\.weight": "G(3k) D", r"qkv\.bias": "G(3k)",
        r"\.q\.weight": "Gk D", r"\.q\.bias": "Gk", r"\.kv\.weight": "G(2k) D",
        r"\.kv\.bias": "G(2k)", r"\.o\.weight": "D Gk", r"(\.o|fc_out)\.bias": "D",
        r"fc_in\.weight": "2F D", r"fc_in\.bias": "2F", r"fc_out\.weight": "D F",
    },
    "t5": {
        r"(shared|embed_tokens|lm_head)\.weight": "V D", r"layer_norm\.weight": "D",
        r"\.[qkv]\.weight": "Gk D", r"\.o\.weight": "D Gk", r"\.wi(_\d)?\.weight": "F D",
        r"\.wo\.weight": "D F", r"relative_attention_bias\.weight": "* G",
    },
    "llama": {
        r"(embed_tokens|lm_head)\.weight": "V D", r"(layernorm|model\.norm)\.weight": "D",
        r"q_proj\.weight": "Grk D", r"q_proj\.bias": "Grk", r"[kv]_proj\.weight": "Gk D",
        r"[kv]_proj\.bias": "Gk", r"o_proj\.weight": "D Grk", r"(o_proj|down_proj)\.bias": "D",
        r"(gate|up)_proj\.weight": "F D", r"(gate|up)_proj\.bias": "F",
        r"down_proj\.weight": "D F", r"[qk]_norm\.weight": "k",
    },
    "gpt2": {
        r"wte\.weight": "V D", r"wpe\.weight": "* D", r"ln_\w\.\w+": "D",
        r"c_attn\.weight": "D 3Gk", r"c_attn\.bias": "3Gk", r"attn\.c_proj\.weight": "Gk D",
        r"c_proj\.bias": "D", r"c_fc\.weight": "D F", r"c_fc\.bias": "F",
        r"mlp\.c_proj\.weight": "F D",
    },
    "bert": {
        r"word_embeddings\.weight": "V D", r"(position|token_type)_embeddings\.weight": "* D",
        r"LayerNorm\.\w+": "D", r"(query|key|value)\.weight": "Gk D",
        r"(query|key|value)\.bias": "Gk", r"attention\.output\.dense\.weight": "D Gk",
        r"intermediate\.dense\.weight": "F D", r"intermediate\.dense\.bias": "F",
        r"pooler\.dense\.weight": "D D", r"\.dense\.bias": "D", r"output\.dense\.weight": "D F",
    },
}  # fmt: skip
_LAYER = re.compile(r"((?P<stack>encoder|decoder)\.)?(block|layers|h|layer)\.(?P<layer>\d+)\.")


def define_pruned(state: dict[str, torch.Tensor], plan: Plan) -> dict[str, torch.Tensor]:
    """What a plan keeps: each tensor seen with all its axes, and indices taken from those."""
    kind = plan.model_type
    kind = {"mt5": "t5", "umt5": "t5", "mistral": "llama", "qwen2": "llama", "qwen3": "llama"}.get(
        kind, kind
    )
    kept, shape, made = find_kept(plan), plan.shape, {}
    for name, tensor in state.items():
        axes = next(a for pattern, a in _LINEAR[kind].items() if re.search(f"{pattern}$", name))
        match = _LAYER.search(name)
        stack, layer, target = "", 0, name
        if match is not None:
            stack = match["stack"] or "decoder"
            layers, layer = getattr(kept, f"{stack}_layers"), int(match["layer"])
            shared = "relative_attention_bias" in name and plan.model_type != "umt5"
            if shared:
                layer = layers[0]
            if layer not in layers:
                continue
            begin, end = match.span("layer")
            target = f"{name[:begin]}{layers.index(layer)}{name[end:]}"
        wide: list[int] = []
        chosen: list[tuple[int, Any]] = []
        merged = []
        for size, axis in zip(tensor.shape, axes.split(), strict=True):
            new = 1
            for letter in axis.replace("(", "").replace(")", ""):
                count = {
                    "D": shape.hidden_size, "G": shape.groups, "F": shape.inner_size,
                    "V": shape.vocabulary_size, "k": shape.head_size, "*": size,
                    "r": shape.heads // shape.groups,
                }.get(letter, int(letter) if letter.isdigit() else 0)  # fmt: skip
                indices: Any = None
                if letter in "DV":
                    indices = kept.hidden if letter == "D" else kept.vocabulary
                elif letter in "GF":
                    indices = getattr(kept, f"{stack}_{'heads' if letter == 'G' else 'ffn'}")[layer]
                if indices is not None:
                    chosen.append((len(wide), indices))
                wide.append(count)
                new *= count if indices is None else len(indices)
            merged.append(new)
        seen = tensor.reshape(wide)
        for place, indices in chosen:
            seen = seen.index_select(place, torch.tensor(indices))
        made[target] = seen.reshape(merged)
    return made


def save_run(run: Path, model: Path) -> Path:
    """A run's folder, whose best model is a given one."""
    best = run / "models" / "step-3"
    shutil.copytree(model, best)
    recipe = Recipe(config={})
    write_manifest(best, recipe.fingerprint, 3)
    (run / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    (run / "best").symlink_to("models/step-3")
    return best
