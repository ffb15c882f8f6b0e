"""A gated model against the pruned one and against the original, for every family."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

from lmcore.compression.families import find_family
from lmcore.compression.gated_model import GatedModel, make_tables
from lmcore.compression.gates import Gates
from lmcore.compression.plan import Kept, Plan, find_kept, find_sizes
from lmcore.compression.pruning import prune_config, prune_state
from lmcore.cost import read_shape
from tiny_families import (
    CONFIGS,
    auto_class,
    load_model,
    make_plan,
    read_model,
    run_model,
    save_model,
)

NAMES = [*CONFIGS]
LAYERS = {"encoder_layers": 2, "decoder_layers": 3}
CUTS: dict[str, dict[str, int]] = {
    "heads": {"heads": 3},
    "ffn": {"ffn": 13},
    "layers": LAYERS,
    "hidden": {"hidden": 18},
    "all": {**LAYERS, "heads": 3, "ffn": 13, "hidden": 18},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = save_model(name, tmp_path_factory.mktemp("models") / name)
        return made[name]

    return find


def load(folder: Path, name: str, dtype: Any = torch.float64) -> Any:
    return auto_class(CONFIGS[name]).from_pretrained(folder, dtype=dtype).eval()


def gate(model: Any, plan: Plan, **options: Any) -> GatedModel:
    return GatedModel(model, find_family(plan.model_type), plan.shape, **options)


def double(tables: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: table.double() for name, table in tables.items()}


def sizes_for(name: str, cut: str) -> dict[str, int]:
    sizes = dict(CUTS[cut])
    if name.startswith("llama") and "heads" in sizes:
        sizes["heads"], sizes["hidden"] = 3, 36  # six heads divide 36
    elif name.startswith("llama") and "hidden" in sizes:
        sizes["hidden"] = 40
    elif name in ("gpt2", "bert") and {"heads", "hidden"} & {*sizes}:
        sizes |= {"heads": 3, "hidden": 18}
    elif name == "openba v1" and "heads" in sizes:
        sizes["heads"] = 1
    return sizes


# Norms of the others compute in float32 whatever the type.
EXACT = ("openba", "openba v1", "gpt2", "bert")
CASES = [(name, "all") for name in NAMES]
CASES += [(name, cut) for name in ("openba", "t5", "qwen2") for cut in CUTS if cut != "all"]
CASES += [("gpt2", "ffn"), ("gpt2", "layers"), ("bert", "layers")]


@pytest.mark.parametrize(("name", "cut"), CASES)
def test_gates_of_0_and_1_are_the_pruned_model(
    folders: Any, name: str, cut: str, tmp_path: Path
) -> None:
    folder = folders(name)
    config, state = read_model(folder)
    plan = make_plan(folder, sizes_for(name, cut))
    pruned = load_model(
        tmp_path / "out", prune_config(config, plan), prune_state(state, plan), torch.float64
    )
    expected = run_model(pruned)
    model = load(folder, name)
    before = run_model(model)
    gated = gate(model, plan)
    gated.set(double(make_tables(find_kept(plan), plan.shape)))
    found = run_model(model)
    if name == "bert":  # states and no logits
        found = found[..., list(find_kept(plan).hidden)]
    most = 1e-9 if name in EXACT else 2e-6
    assert (found - expected).abs().max() < most * expected.abs().max()
    assert before.shape != found.shape or (found - before).abs().max() > 1e-3
    gated.remove()
    assert torch.equal(run_model(model), before)


@pytest.mark.parametrize("fused", ["auto", "off"])
@pytest.mark.parametrize("name", NAMES)
def test_open_gates_are_the_original_bit_for_bit(folders: Any, name: str, fused: str) -> None:
    folder = folders(name)
    plan = make_plan(folder, {})
    model = load(folder, name, torch.float32)
    expected = run_model(model)
    gated = gate(model, plan, fused=fused)
    assert torch.equal(run_model(model), expected)
    gates = Gates(plan.shape, shared_heads=find_family(plan.model_type).shared_heads)
    gated.set(gates.split(gates.decide()))
    assert torch.equal(run_model(model), expected)


@pytest.mark.parametrize("name", ["openba", "t5 v1.1", "qwen3", "gpt2", "bert"])
def test_gates_have_gradients(folders: Any, name: str) -> None:
    """Against differences, of gates in between, of every dimension."""
    folder = folders(name)
    plan = make_plan(folder, {})
    model = load(folder, name)
    gated = gate(model, plan)
    gates = Gates(plan.shape).double()
    values = torch.rand(len(gates.log_alpha), dtype=torch.float64) * 0.8 + 0.1
    generator = torch.Generator().manual_seed(1)

    def run(values: torch.Tensor) -> torch.Tensor:
        gated.set(gates.split(values))
        ids = torch.arange(3, 15).reshape(2, 6)
        given = {"decoder_input_ids": ids.flip(1)} if model.config.is_encoder_decoder else {}
        found: torch.Tensor = model(input_ids=ids, **given)[0]
        return found.square().sum()

    leaf = values.clone().requires_grad_()
    run(leaf).backward()
    assert leaf.grad is not None
    assert bool((leaf.grad != 0).all())
    with torch.no_grad():
        for _ in range(3):
            way = torch.randn(len(values), generator=generator, dtype=torch.float64)
            is_exact = name in ("gpt2", "bert")  # logits of OpenBA are float32
            step = 1e-6 if is_exact else 1e-3
            slope = (run(values + step * way) - run(values - step * way)) / (2 * step)
            close = 1e-5 if is_exact else 1e-2
            assert torch.isclose(slope.double(), leaf.grad @ way, rtol=close)


def test_half_open_gates_multiply(folders: Any) -> None:
    """A gate in between is what multiplying the weights behind heads and units gives."""
    folder = folders("openba")
    plan = make_plan(folder, {})
    model = load(folder, "openba")
    sizes = find_sizes(plan.shape)
    heads = torch.rand(4, sizes["decoder_heads"], dtype=torch.float64)
    inner = torch.rand(4, sizes["decoder_ffn"], dtype=torch.float64)
    gated = gate(model, plan)
    gated.set({"decoder_heads": heads, "decoder_ffn": inner})
    found = run_model(model)
    gated.remove()
    width = plan.shape.head_size
    with torch.no_grad():
        for layer, block in enumerate(model.decoder.block):
            for attention in (block.self_attn, block.inter_attn):
                attention.o.weight *= heads[layer].repeat_interleave(width)
            block.mlp.fc_out.weight *= inner[layer]
    assert torch.allclose(run_model(model), found, rtol=1e-9)


def test_bert_has_gates_behind_its_output(folders: Any) -> None:
    """Masked words: the norm of the output layer averages over open channels, too."""
    folder = folders("bert")
    plan = make_plan(folder, {"hidden": 18, "heads": 3})
    torch.manual_seed(0)
    settings = type(load(folder, "bert").config).from_pretrained(folder)
    model = AutoModelForMaskedLM.from_config(settings).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    state = {name: value.detach() for name, value in model.state_dict().items()}
    config, _ = read_model(folder)
    smaller = type(model.config)(**prune_config(config, plan))
    pruned = AutoModelForMaskedLM.from_config(smaller).double().eval()
    pruned.load_state_dict(prune_state(state, plan))
    expected = run_model(pruned)
    gated = gate(model, plan)
    gated.set(double(make_tables(find_kept(plan), plan.shape)))
    assert (run_model(model) - expected).abs().max() < 1e-9


def test_a_kernel_needs_a_device(folders: Any) -> None:
    folder = folders("t5")
    plan, model = make_plan(folder, {}), load(folder, "t5")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            gate(model, plan, fused="on")
    with pytest.raises(ValueError, match="fused must be one of auto, on, off"):
        gate(model, plan, fused="yes")


def test_a_kept_whole_has_no_tables(folders: Any) -> None:
    plan = make_plan(folders("umt5"), {"ffn": 13})
    kept: Kept = find_kept(plan)
    tables = make_tables(kept, plan.shape)
    assert {*tables} == {"encoder_ffn", "decoder_ffn"}
    assert tables["encoder_ffn"].sum(1).tolist() == [13, 13, 13]
    assert read_shape(folders("umt5")) == plan.shape
