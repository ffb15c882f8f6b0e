"""Pruned models: their bits, that they load, and that they compute what they should."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

import lmcore.openba
from lmcore.compression.composition import compose, split_stages
from lmcore.compression.families import FAMILIES, find_family
from lmcore.compression.plan import (
    Plan,
    Stage,
    find_kept,
    prune_shape,
)
from lmcore.compression.pruning import make_cuts, prune_config, prune_state, renumber_ids
from lmcore.cost import read_shape
from lmcore.cost.configs import make_shape
from tiny_families import (
    CONFIGS,
    define_pruned,
    load_model,
    make_plan,
    read_model,
    run_model,
    save_model,
)

NAMES = [*CONFIGS]
# Of BERT and GPT-2 a head has the hidden size over the number of heads.
SMALL = {"encoder_layers": 2, "decoder_layers": 2, "hidden": 18, "heads": 3, "ffn": 13}


def sizes_for(name: str) -> dict[str, int]:
    kind = CONFIGS[name]["model_type"]
    more = {"vocabulary": 29}
    if kind == "openba":
        return {**SMALL, **more, "hidden": 20, "encoder_layers": 2 if name == "openba" else 1}
    return {**SMALL, **more, **({"hidden": 36} if kind in ("llama", "mistral") else {})}


Folders = Callable[[str], Path]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    base, made = tmp_path_factory.mktemp("families"), {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = save_model(name, base / name.replace(" ", "-"))
        found: Path = made[name]
        return found

    return make


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("name", NAMES)
def test_bits_and_loading(tmp_path: Path, folders: Folders, name: str) -> None:
    """All dimensions at once: the definition's bits, and a folder that opens."""
    folder = folders(name)
    config, state = read_model(folder)
    plan = make_plan(folder, sizes_for(name))
    pruned, smaller = prune_state(state, plan), prune_config(config, plan)
    assert same(pruned, define_pruned(state, plan))
    model = load_model(tmp_path / "out", smaller, pruned)
    assert torch.isfinite(run_model(model)).all()
    shape = prune_shape(plan)
    assert shape == read_shape(tmp_path / "out")
    assert shape == replace(make_shape(smaller), tied=shape.tied)


@pytest.mark.parametrize("name", NAMES)
def test_stages_compose(folders: Folders, name: str) -> None:
    """Pruning stage by stage, each in the numbering of what is left, is pruning at once."""
    folder = folders(name)
    config, state = read_model(folder)
    sizes = sizes_for(name)
    if "head_size" not in find_family(plan_type(folder)).fields:
        sizes = {key: size for key, size in sizes.items() if key not in ("hidden", "heads")}
    elif plan_type(folder) == "llama":
        sizes["heads"] = 2
        sizes["hidden"] = 24
    plan = make_plan(folder, sizes, seed=1, stages=2)
    assert len(plan.stages) == 2
    staged, stage_config = state, config
    for part in split_stages(plan):
        staged, stage_config = prune_state(staged, part), prune_config(stage_config, part)
    at_once = compose(plan)
    assert len(at_once.stages) == 1
    assert same(staged, prune_state(state, at_once))
    assert same(staged, prune_state(state, plan))
    assert stage_config == prune_config(config, plan) == prune_config(config, at_once)
    assert find_kept(plan) == find_kept(at_once)


def plan_type(folder: Path) -> str:
    found: str = json.loads((folder / "config.json").read_text())["model_type"]
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bert", "BertForMaskedLM"), ("bert", "BertForSequenceClassification"),
        ("bert", "BertForPreTraining"), ("gpt2", "GPT2Model"),
        ("gpt2", "GPT2ForSequenceClassification"), ("llama", "LlamaModel"),
        ("llama tied", "LlamaForSequenceClassification"), ("t5", "T5EncoderModel"),
        ("t5", "T5Model"), ("openba", "OpenBAModel"), ("openba", "OpenBAEncoderModel"),
    ],
)  # fmt: skip
def test_other_models_of_a_family(tmp_path: Path, name: str, kind: str) -> None:
    """What stands on a model, or is left out of it, has other names, all of which are known."""
    own = {key: value for key, value in CONFIGS[name].items() if key != "model_type"}
    made = getattr(lmcore.openba if name == "openba" else transformers, kind)
    config = transformers.AutoConfig.for_model(CONFIGS[name]["model_type"], **own)
    made(config).save_pretrained(tmp_path / "in")
    fields, state = read_model(tmp_path / "in")
    plan = make_plan(tmp_path / "in", sizes_for(name))
    pruned = prune_state(state, plan)
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text(json.dumps(prune_config(fields, plan)))
    save_file(pruned, out / "model.safetensors", {"format": "pt"})
    _, found = made.from_pretrained(out, output_loading_info=True)
    assert {key: [*value] for key, value in found.items() if value} == {}


def test_openba_under_our_names(tmp_path: Path, folders: Folders) -> None:
    folder = folders("openba")
    config, state = read_model(folder)
    plan = make_plan(folder, sizes_for("openba"))
    released = prune_state(state, plan)
    state["encoder.embed_tokens.weight"] = state.pop("shared_embedding.weight")
    pruned = prune_state(state, plan)
    assert "encoder.embed_tokens.weight" in pruned
    first, second = (
        run_model(load_model(tmp_path / str(n), prune_config(config, plan), weights))
        for n, weights in enumerate((released, pruned))
    )
    assert torch.equal(first, second)


# What a pruned model computes.

# Modules that heads, and inner units, go into.
OUTPUTS = {
    "openba": ("attn.o", "fc_out"), "t5": ("Attention.o", "wo"), "llama": ("o_proj", "down_proj"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"), "bert": ("attention.output.dense", "output.dense"),
}  # fmt: skip


def outputs_of(model_type: str) -> tuple[str, str]:
    kind = "t5" if model_type.endswith("t5") else model_type
    return OUTPUTS.get(kind, OUTPUTS["llama"])


def mask_parts(model: Any, plan: Plan) -> None:
    """Nothing of a head or unit that is cut reaches what it goes into, and nothing a cut layer."""
    heads_end, inner_end = outputs_of(plan.model_type)
    kept, shape = find_kept(plan), plan.shape
    width = shape.heads // shape.groups * shape.head_size
    for name, module in model.named_modules():
        is_heads, is_inner = name.endswith(heads_end), name.endswith(inner_end)
        if not (is_heads or is_inner):
            continue
        parts = name.split(".")
        stack = "encoder" if "encoder" in parts else "decoder"
        layer = int(next(part for part in parts if part.isdigit()))
        if layer not in getattr(kept, f"{stack}_layers"):
            module.register_forward_hook(lambda *given: torch.zeros_like(given[-1]))
            continue
        indices = getattr(kept, f"{stack}_{'heads' if is_heads else 'ffn'}")[layer]
        if is_heads:
            size = shape.groups * width
            seen = torch.tensor([place // width in indices for place in range(size)])
        else:
            seen = torch.tensor([place in indices for place in range(shape.inner_size)])
        module.register_forward_pre_hook(lambda _, given, seen=seen: (given[0] * seen, *given[1:]))


# Fewer heads of GPT-2 and BERT need a smaller hidden size, and BERT's norms stand behind a layer
# and change what passes by.
PARTS = [
    (name, part)
    for part in ("heads", "ffn", "layers")
    for name in NAMES
    if not (name in ("gpt2", "bert") and part == "heads") and (name, part) != ("bert", "layers")
]


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_what_adds_nothing_can_be_cut(
    tmp_path: Path, folders: Folders, name: str, part: str
) -> None:
    """Heads, units and layers that are masked in the original, and cut in the pruned one."""
    folder = folders(name)
    config, state = read_model(folder)
    kind = config["model_type"]
    chosen = {key: size for key, size in SMALL.items() if part in key}
    if name == "openba v1":
        chosen.pop("encoder_layers", None)
    if kind == "llama" and part == "heads":
        chosen["heads"] = 2
    plan = make_plan(folder, chosen, seed=2)
    pruned = load_model(
        tmp_path / "out", prune_config(config, plan), prune_state(state, plan), torch.float64
    )
    original = load_model(tmp_path / "in", config, state, torch.float64)
    whole = run_model(original)
    mask_parts(original, plan)
    masked, found = run_model(original), run_model(pruned)
    assert torch.allclose(found, masked, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, whole, rtol=1e-2, atol=1e-2)  # what was cut did something


@pytest.mark.parametrize("name", ["t5 v1.1", "llama", "qwen3"])
def test_hidden_channels_but_for_the_norms(tmp_path: Path, folders: Folders, name: str) -> None:
    """Channels that are zero throughout: an RMSNorm has sqrt(D' / D) of what it had without them.

    With weights that make up for it, and its epsilon in proportion, the model is the same.
    """
    config, state = read_model(folders(name))
    plan = make_plan(folders(name), {"hidden": 16}, seed=3)
    kept = find_kept(plan).hidden
    gone = [channel for channel in range(plan.shape.hidden_size) if channel not in kept]
    norms = [key for key in state if re.search("(layernorm|layer_norm|model.norm).weight$", key)]
    for key, tensor in state.items():
        if key.endswith(("shared.weight", "embed_tokens.weight")):
            tensor[:, gone] = 0
        elif re.search(r"(\.o\.weight|\.wo\.weight|(o_proj|down_proj)\.(weight|bias))$", key):
            tensor[gone] = 0
    pruned, smaller = prune_state(state, plan), prune_config(config, plan)
    ratio = plan.shape.hidden_size / len(kept)
    assert norms
    for key in norms:
        pruned[key] = pruned[key] * math.sqrt(ratio)
    for key in ("layer_norm_epsilon", "rms_norm_eps"):
        if key in smaller:
            smaller[key] *= ratio
    found = run_model(load_model(tmp_path / "out", smaller, pruned, torch.float64))
    expected = run_model(load_model(tmp_path / "in", config, state, torch.float64))
    # Norms compute in float32, and logits are as large as 30.
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_biases_of_the_first_layer_stay(folders: Folders) -> None:
    _, state = read_model(folders("t5"))
    plan = make_plan(folders("t5"), {})
    plan = replace(plan, stages=(Stage(encoder_layers=[1, 2], decoder_layers=[2]),))
    pruned = prune_state(state, plan)
    for stack in ("encoder", "decoder"):
        name = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        assert torch.equal(pruned[name], state[name])
        other = name.replace("relative_attention_bias", "q")
        source = other.replace("block.0", "block.1" if stack == "encoder" else "block.2")
        assert torch.equal(pruned[other], state[source])


def test_released_files(tmp_path: Path, golden_dir: Path) -> None:
    """Folders in the form of the authors, whose configuration does not say V1's rule."""
    for folder in sorted((golden_dir / "openba").iterdir()):
        config, state = read_model(folder)
        assert "shared_embedding.weight" in state
        shape = read_shape(folder)
        sizes = {"encoder_layers": shape.encoder_layers, "decoder_layers": 2, "ffn": 100}
        plan = make_plan(folder, {**sizes, "hidden": shape.hidden_size - 3, "heads": 1})
        pruned = prune_state(state, plan)
        assert same(pruned, define_pruned(state, plan))
        out = tmp_path / folder.name
        model = load_model(out, prune_config(config, plan), pruned)
        assert model.config.inner_size == 100
        assert read_shape(out).inner_size == 100
        assert torch.isfinite(run_model(model)).all()


# Configurations.


def test_a_pruned_v1_is_read_as_it_stands(folders: Folders) -> None:
    config, _ = read_model(folders("openba v1"))
    assert config.pop("swiglu_rule") is True  # released files do not say
    plan = make_plan(folders("openba v1"), {"ffn": 57})
    smaller = prune_config(config, plan)
    assert (smaller["ffn_hidden_size"], smaller["swiglu_rule"]) == (57, False)


def test_windows_go_with_their_layers(folders: Folders) -> None:
    config, _ = read_model(folders("qwen2"))
    plan = make_plan(folders("qwen2"), {})
    plan = replace(plan, stages=(Stage(decoder_layers=[0, 2, 3]),))
    wanted = ["full_attention", "sliding_attention", "sliding_attention"]
    assert prune_config(config, plan)["layer_types"] == wanted
    with pytest.raises(ValueError, match=r"^layer_types must be a list of 4: got 'x'$"):
        prune_config({**config, "layer_types": "x"}, plan)
    del config["layer_types"]
    with pytest.raises(ValueError, match=r"^max_window_layers must be from 0 to 1000: got 'x'$"):
        prune_config({**config, "max_window_layers": "x"}, plan)
    assert prune_config(config, plan)["layer_types"] == wanted


def test_special_tokens_get_new_ids(folders: Folders) -> None:
    plan = make_plan(folders("t5"), {})
    plan = replace(plan, stages=(Stage(vocabulary=[0, 1, 5, 9, 40]),))
    config = {"model_type": "t5", "eos_token_id": [1, 9], "forced_bos_token_id": 40, "x": 9}
    config |= {"decoder_start_token_id": None, "bos_token_id": -1, "suppress_tokens": [5]}
    found = prune_config(config, plan)
    assert (found["eos_token_id"], found["forced_bos_token_id"], found["x"]) == ([1, 3], 4, 9)
    assert (found["pad_token_id"], found["bos_token_id"]) == (0, -1)
    assert (found["suppress_tokens"], found["vocab_size"]) == ([2], 5)
    with pytest.raises(ValueError, match="name the token 7, which goes"):
        renumber_ids({"eos_token_id": 7}, plan)


# What is refused.


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("gpt2", {"hidden": 18}, "got hidden 18 and 4 heads; the nearest is hidden 18 and 3 heads"),
        ("bert", {"heads": 2}, "got hidden 24 and 2 heads; the nearest is hidden"),
        ("llama", {"hidden": 45}, "got hidden 45 and 8 heads; the nearest is hidden 48 and 8"),
        ("llama", {"heads": 3, "hidden": 47}, "the nearest is hidden 48 and 6 heads"),
    ],
)
def test_what_a_configuration_cannot_say(
    folders: Folders, name: str, sizes: dict[str, int], message: str
) -> None:
    config, state = read_model(folders(name))
    plan = make_plan(folders(name), sizes)
    for prune, what in ((prune_config, config), (prune_state, state)):
        with pytest.raises(ValueError, match=message):
            prune(what, plan)


def test_transformers_refuses_the_same() -> None:
    """Only LLaMA's configuration wants heads to divide the hidden size with `head_dim` given."""
    from transformers import AutoConfig

    sizes = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 6}
    for kind in ("llama", "mistral", "qwen2", "qwen3"):
        try:
            AutoConfig.for_model(kind, hidden_size=18, **sizes)
            refused = False
        except Exception as error:  # of huggingface_hub's own type
            refused = "multiple of the number of attention" in str(error)
        assert refused == FAMILIES[kind].heads_divide_hidden


def test_layers_of_t5_share_heads(folders: Folders) -> None:
    config, _ = read_model(folders("t5"))
    plan = make_plan(folders("t5"), {})
    heads = {0: [0, 2], 1: [0, 2], 2: [0, 1]}
    stage = Stage(encoder_heads=heads, decoder_heads=dict.fromkeys(range(4), (1, 3)))
    with pytest.raises(ValueError, match="encoder layer 2 must keep those of layer 0; the nearest"):
        prune_config(config, replace(plan, stages=(stage,)))
    umt5 = replace(plan, model_type="umt5", shape=read_shape(folders("umt5")), stages=(stage,))
    assert prune_config({**config, "model_type": "umt5"}, umt5)["num_heads"] == 2


def test_other_models(folders: Folders) -> None:
    config, state = read_model(folders("llama"))
    plan = make_plan(folders("llama"), {"ffn": 7})
    shapes = {name: [*tensor.shape] for name, tensor in state.items()}
    with pytest.raises(ValueError, match=r"llama has no tensor 'model.layers\.0\.mlp\.gate"):
        make_cuts(plan, {**shapes, "model.layers.0.mlp.gate.weight": [3]})
    message = r"embed_tokens.weight has the shape \[42, 48\] where \[41, 48\]"
    with pytest.raises(ValueError, match=message):
        make_cuts(plan, {**shapes, "model.embed_tokens.weight": [42, 48]})
    fewer = {name: shape for name, shape in shapes.items() if ".layers.2." not in name}
    with pytest.raises(ValueError, match=r"with 4 decoder layers: the checkpoint has 0-1,3$"):
        make_cuts(plan, fewer)
    with pytest.raises(ValueError, match="of the type llama: got 'mistral'"):
        prune_config({**config, "model_type": "mistral"}, plan)
    with pytest.raises(ValueError, match=r"^model_type must be one of openba, t5, "):
        find_family("vit")
    scaled = {**read_model(folders("gpt2"))[0], "scale_attn_by_inverse_layer_idx": True}
    with pytest.raises(ValueError, match="scale_attn_by_inverse_layer_idx must be false"):
        prune_config(scaled, make_plan(folders("gpt2"), {"ffn": 7}))
