"""A trained encoder-decoder with cross-attention, of a family that the package does not know."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from annalog import (
    FAMILY,
    PLAN,
    SHAPE,
    Annalog,
    build,
    compute_distance,
    compute_loss,
    cut,
    is_closed,
    lay_out,
    pad,
    prune,
    read_molecules,
    read_state,
    read_tokens,
    write,
)
from lmcore.compression import (
    Plan,
    Stage,
    add_stage,
    compose,
    cut_checkpoint,
    find_kept,
    make_cuts,
    prune_shape,
    prune_state,
    split_stages,
)
from lmcore.compression.choosing import Sizes

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(data_dir: Path) -> Path:
    return data_dir / "models/annalog"


@pytest.fixture(scope="module")
def state(folder: Path) -> State:
    return read_state(folder)


@pytest.fixture(scope="module")
def original(state: State) -> Annalog:
    return build(state)


@pytest.fixture(scope="module")
def ids(folder: Path) -> Tensor:
    return pad([ids for ids in read_molecules(folder, 100) if len(ids) <= 24][:32])


def test_the_model_is_read_as_it_was_trained(original: Annalog, ids: Tensor, folder: Path) -> None:
    assert compute_loss(original, ids) < 0.6
    assert compute_loss(original, ids, ids.roll(1, 0)) > 1.5
    written = write(original, ids[:8], read_tokens(folder))
    assert len({*written}) == 8
    assert all(map(is_closed, written))


@pytest.mark.parametrize("text", ["C(", "C1CC", "C=", "C)C", "C()C", "C==C", "", "CC<pad>"])
def test_what_is_not_closed(text: str) -> None:
    assert not is_closed(text)
    assert is_closed("CC(=O)Oc1ccccc1C(=O)N[C@@H]%12CC%12")


def make_stages() -> Plan:
    """Every dimension is cut, in two stages."""
    plan = cut(Sizes(decoder_layers=2, encoder_layers=2, vocabulary=[*range(20), *range(30, 50)]))
    stage = cut(Sizes(heads=5, ffn=300, hidden=200), seed=3).stages[0]
    kept = find_kept(plan)
    widths = {
        f"{stack}_{name}": {
            layer: getattr(stage, f"{stack}_{name}")[layer]
            for layer in getattr(kept, f"{stack}_layers")
        }
        for stack in ("encoder", "decoder")
        for name in ("heads", "ffn")
    }
    return add_stage(plan, Stage(hidden=stage.hidden, **widths))


def test_files_are_cut_as_defined(state: State, folder: Path, tmp_path: Path) -> None:
    plan = make_stages()
    shapes = {name: tensor.shape for name, tensor in state.items()}
    cuts = make_cuts(plan, shapes, FAMILY)
    cut_checkpoint(lay_out(folder, tmp_path / "model"), tmp_path / "small", cuts)
    found = load_file(tmp_path / "small/model.safetensors")
    by_stages = state
    for part in split_stages(plan):
        by_stages = prune_state(by_stages, part, FAMILY)
    for defined in (prune_state(state, compose(plan), FAMILY), by_stages):
        assert found.keys() == defined.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in defined.items())
    build(found, prune_shape(plan))
    # By hand, of one tensor: rows of heads, columns of channels, of what was layer 2.
    kept = find_kept(plan)
    assert kept.decoder_layers == (0, 2)
    rows = [32 * head + place for head in kept.decoder_heads[2] for place in range(32)]
    whole = state["decoder.layers.2.encoder_attention.fc_k.weight"]
    cut_one = found["decoder.layers.1.encoder_attention.fc_k.weight"]
    assert torch.equal(cut_one, whole[rows][:, list(kept.hidden)])


@pytest.mark.parametrize("sizes", [Sizes(heads=5), Sizes(ffn=300)])
def test_what_adds_nothing_can_be_cut(state: State, ids: Tensor, sizes: Sizes) -> None:
    plan = cut(sizes, seed=1)
    kept = find_kept(plan)
    silent = {name: tensor.clone() for name, tensor in state.items()}
    for stack in ("encoder", "decoder"):
        for layer in range(3):
            place = f"{stack}.layers.{layer}"
            heads = {*range(8)} - {*getattr(kept, f"{stack}_heads")[layer]}
            for name in silent:
                if name.startswith(place) and name.endswith("fc_o.weight"):
                    silent[name].view(256, 8, 32)[:, sorted(heads)] = 0
            units = {*range(512)} - {*getattr(kept, f"{stack}_ffn")[layer]}
            silent[f"{place}.positionwise_feedforward.fc_2.weight"][:, sorted(units)] = 0
    with torch.no_grad():
        whole, small, loud = (
            model.double()(ids, ids[:, :-1])
            for model in (build(silent), prune(silent, plan), build(state))
        )
    torch.testing.assert_close(small, whole, rtol=0, atol=1e-9)
    assert (whole - loud).abs().max() > 1  # the model did hear them


def test_a_cut_layer_is_one_that_is_left_out(state: State, ids: Tensor) -> None:
    plan = add_stage(PLAN, Stage(), cut_encoder=[1], cut_decoder=[0])
    whole, small = build(state), prune(state, plan)
    del whole.encoder.layers[1], whole.decoder.layers[0]
    with torch.no_grad():
        assert torch.equal(whole(ids, ids[:, :-1]), small(ids, ids[:, :-1]))


def test_kept_tokens_have_the_logits_that_they_had(
    state: State, original: Annalog, ids: Tensor
) -> None:
    kept = sorted({0, 1, 2, 3, *ids.unique().tolist()})
    assert len(kept) < SHAPE.vocabulary_size
    small = prune(state, cut(Sizes(vocabulary=kept)))
    new = torch.full((SHAPE.vocabulary_size,), -1)
    new[kept] = torch.arange(len(kept))
    with torch.no_grad():
        before = original(ids, ids[:, :-1])[..., kept]
        after = small(new[ids], new[ids][:, :-1])
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "left"), [("heads", (7, 6, 4)), ("ffn", (384, 256, 128)), ("hidden", (248, 224))]
)
def test_a_larger_cut_leads_further_away(
    state: State, original: Annalog, ids: Tensor, name: str, left: tuple[int, ...]
) -> None:
    everything = range(SHAPE.vocabulary_size)
    distances = [0.0]
    for size in left:
        small = prune(state, cut(replace(Sizes(), **{name: size})))
        distances.append(compute_distance(small, original, ids, ids, everything))
    assert distances == sorted(distances)
    assert distances[1] > 1e-4
