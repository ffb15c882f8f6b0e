"""Scores of a model's parts, against loops by hand and against changes of the loss."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

from lmcore.compression.calibration import CalibrationRow
from lmcore.compression.cuts import apply_cut
from lmcore.compression.families import find_family
from lmcore.compression.importance import make_batches
from lmcore.compression.loading import find_kind
from lmcore.compression.magnitudes import score_magnitudes
from lmcore.compression.plan import LAYERED, Plan, Stage, layers_of
from lmcore.compression.planning import start_plan
from lmcore.compression.probes import (
    find_places,
    score_activations,
    score_gradients,
    score_influence,
)
from lmcore.compression.pruning import make_cuts
from tiny_families import CONFIGS, read_model, save_model

NAMES = [*CONFIGS]
ROWS = [
    CalibrationRow((3, 9, 4, 7, 1), (5, 6, 1)), CalibrationRow((8, 2), (4, 4, 9, 11, 1)),
    CalibrationRow((10, 12, 13, 1), (6,)), CalibrationRow((5, 7), (3, 1)),
]  # fmt: skip
SCORES = [score_activations, score_gradients, score_influence]


class Loaded:
    """A model of a family, loaded with and without its output layer."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = save_model(name, folder)
        self.plan: Plan = start_plan(folder)
        self.family = find_family(self.plan.model_type)
        kinds = {"encoder-decoder": AutoModelForSeq2SeqLM, "decoder": AutoModelForCausalLM,
                 "encoder": AutoModelForMaskedLM}  # fmt: skip
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.kind = find_kind(self.model.config)
        torch.manual_seed(1)
        self.whole = kinds[self.kind].from_pretrained(folder, dtype=torch.float32).eval()

    def score(self, function: Any, size: int = 2, rows: Any = ROWS, **ids: Any) -> dict[str, Any]:
        whole = function is score_gradients
        if whole and self.kind == "encoder":
            ids["mask"] = 40
        model = self.whole if whole else self.model
        batches = make_batches(rows, self.kind, size, **ids)
        return flat(function(model, batches, self.family, self.plan.shape))


def flat(scores: Any) -> dict[str, Any]:
    """`[layers, indices]` of each dimension that is scored."""
    found = {}
    for name in ("hidden", "encoder_layers", "decoder_layers", *LAYERED):
        value = getattr(scores, name)
        if value is not None and len(value):
            found[name] = np.array([value[k] for k in sorted(value)]
                                   if isinstance(value, dict) else value)  # fmt: skip
    return found


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base, made = tmp_path_factory.mktemp("scored"), dict[str, Loaded]()

    def load(name: str) -> Loaded:
        if name not in made:
            made[name] = Loaded(name, base / name.replace(" ", "-"))
        return made[name]

    return load


@pytest.mark.parametrize("name", NAMES)
def test_every_family_and_size_of_batches(loaded: Any, name: str) -> None:
    """All dimensions have scores that neither the batches nor the padding change."""
    model = loaded(name)
    for function in SCORES:
        found = model.score(function, 1)
        stacks = [s for s in ("encoder", "decoder") if getattr(model.plan.shape, f"{s}_layers")]
        widths = {"hidden", *(f"{s}_{d}" for s in stacks for d in ("heads", "ffn"))}
        layers = {f"{s}_layers" for s in stacks}
        assert {*found} == (layers if function is score_influence else widths)
        for size, ids in ((2, {}), (4, {"pad": 17})):
            other = model.score(function, size, **ids)
            for key, values in found.items():
                assert values.min() >= 0
                assert (values > 0).mean() > 0.5  # ReLU leaves units that never speak
                assert np.allclose(other[key], values, rtol=2e-5, atol=1e-6 * values.max()), key


# Against loops by hand.


def run_steps(model: Any, path: str) -> tuple[Any, list[torch.Tensor]]:
    """What went into a module, of each row alone."""
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(path).register_forward_pre_hook(
        lambda _, args: seen.append(args[0].detach()[0])
    )
    return handle, seen


def test_activations_are_those_of_a_loop(loaded: Any) -> None:
    """Of T5: inner units of an encoder's layer, and heads of both attentions of a decoder's."""
    t5 = loaded("t5")
    found, model = t5.score(score_activations), t5.model
    paths = ["encoder.block.1.layer.1.DenseReluDense.wo", "decoder.block.2.layer.0.SelfAttention.o",
             "decoder.block.2.layer.1.EncDecAttention.o"]  # fmt: skip
    hooks = [run_steps(model, path) for path in paths]
    with torch.no_grad():
        for row in ROWS:
            target = torch.tensor([[0, *row.target[:-1]]])
            model(input_ids=torch.tensor([row.source]), decoder_input_ids=target)
    for handle, _ in hooks:
        handle.remove()
    inner, own, cross = (torch.cat(seen).double() for _, seen in hooks)
    expected = inner.square().mean(0).sqrt().numpy()
    assert np.allclose(found["encoder_ffn"][1], expected, rtol=1e-5)
    heads = own.square().mean(0).view(4, 6).sum(1) + cross.square().mean(0).view(4, 6).sum(1)
    assert np.allclose(found["decoder_heads"][2], heads.sqrt().numpy(), rtol=1e-5)


def measure_row(model: Loaded, row: CalibrationRow) -> float:
    """The loss of a row, in float64, added up over its labels."""
    [batch] = make_batches([row], model.kind, 1)
    with torch.no_grad():
        logits = model.whole(**batch.inputs).logits[0].double()
    chosen = batch.labels[0] != -100
    return -float(logits.log_softmax(-1)[chosen].gather(1, batch.labels[0][chosen, None]).sum())


@pytest.mark.parametrize("name", ["openba", "t5 v1.1", "llama", "gpt2"])
def test_gradients_are_differences_of_the_loss(loaded: Any, name: str) -> None:
    """A gate a little more and a little less open, on the columns of the map that reads it."""
    model, step = copy.copy(loaded(name)), 3e-3
    model.whole = copy.deepcopy(model.whole).double()
    found = model.score(score_gradients)
    labels = sum(len(row.target) for row in ROWS)
    tried = 0
    for key in ("encoder_heads", "decoder_heads", "decoder_ffn", "hidden"):
        places = [place for place in find_places(model.whole, model.family, model.plan.shape)
                  if place.dimension == key and place.layer in (None, 1)]  # fmt: skip
        if not places:
            continue
        for index in (0, 2):
            changes = []
            for row in ROWS:
                losses = []
                for factor in (1 + step, 1 - step):
                    undo = [scale(place, index, factor, model) for place in places]
                    losses.append(measure_row(model, row))
                    for restore in undo:
                        restore()
                changes.append(abs(losses[0] - losses[1]) / (2 * step))
            score = found[key][index] if key == "hidden" else found[key][1][index]
            assert score == pytest.approx(sum(changes) / labels, rel=1e-3, abs=1e-6), (key, index)
            tried += 1
    assert tried >= 6


def scale(place: Any, index: int, factor: float, model: Loaded) -> Any:
    """Scales what an index lets through, in the weights; a call puts them back."""
    columns = place.axis.expand((index,), model.plan.shape)
    weights = [p for p in (place.module.weight, getattr(place.module, "bias", None))
               if p is not None and (p.ndim == 1) != place.is_input]  # fmt: skip
    before = [weight.detach().clone() for weight in weights]
    for weight in weights:
        rows = place.is_input and not model.family.transposed
        (weight.data.T if rows else weight.data)[columns] *= factor

    def restore() -> None:
        for weight, old in zip(weights, before, strict=True):
            weight.data.copy_(old)

    return restore


@pytest.mark.parametrize("name", ["t5", "openba", "bert"])
def test_influence_is_that_of_a_loop(loaded: Any, name: str) -> None:
    model = loaded(name)
    found = model.score(score_influence)
    total, count = np.zeros(3), 0
    with torch.no_grad():
        for row in ROWS:
            [batch] = make_batches([row], model.kind, 1)
            output = model.model(**batch.inputs, output_hidden_states=True)
            states = output["encoder_hidden_states" if name != "bert" else "hidden_states"]
            count += states[0].shape[1]
            for layer in range(2):  # behind the last one stands a norm
                cosine = torch.nn.functional.cosine_similarity(
                    states[layer][0].double(), states[layer + 1][0].double(), dim=-1
                )
                total[layer] += float((1 - cosine).sum())
    assert np.allclose(found["encoder_layers"][:2], total[:2] / count, rtol=1e-5)


# Laws.


def test_what_adds_nothing_scores_nothing(loaded: Any) -> None:
    model = copy.copy(loaded("t5 v1.1"))
    model.model, model.whole = copy.deepcopy(model.model), copy.deepcopy(model.whole)
    before = {f.__name__: model.score(f) for f in SCORES}
    for one in (model.model, model.whole):
        block = one.decoder.block[1].layer
        block[2].DenseReluDense.wi_1.weight.data[4] = 0
        block[2].DenseReluDense.wi_1.weight.data[5] *= 3
        for attention in (block[0].SelfAttention, block[1].EncDecAttention):
            attention.v.weight.data[6:12] = 0
        for layer in one.encoder.block[2].layer:
            last = getattr(layer, "SelfAttention", None)
            (last.o if last is not None else layer.DenseReluDense.wo).weight.data.zero_()
    for function in (score_activations, score_gradients):
        found = model.score(function)
        assert found["decoder_ffn"][1][4] == 0
        assert found["decoder_heads"][1][1] == 0
        assert before[function.__name__]["decoder_ffn"][1][4] > 0
        if function is score_activations:
            assert found["decoder_ffn"][1][5] > 2 * before[function.__name__]["decoder_ffn"][1][5]
    assert model.score(score_influence)["encoder_layers"][2] == 0
    assert before["score_influence"]["encoder_layers"][2] > 0


@pytest.mark.parametrize("name", ["openba", "umt5", "qwen3", "gpt2", "bert"])
def test_magnitudes_are_those_of_cuts(loaded: Any, name: str) -> None:
    """An index is cut in all layers: so much is gone of the squares of all weights."""
    model, shape = loaded(name), loaded(name).plan.shape
    found = flat(score_magnitudes(model.folder, model.plan))
    state = read_model(model.folder)[1]
    shapes = {key: tensor.shape for key, tensor in state.items()}
    layers = {key: getattr(shape, layers_of(key)) for key in LAYERED}

    def measure(**kept: Any) -> float:
        plan = Plan(model_type=model.plan.model_type, shape=shape, stages=[Stage(**kept)])
        cuts = make_cuts(plan, shapes)
        return sum(float(apply_cut(state[cut.source], cut).double().square().sum()) for cut in cuts)

    # A head's size is fixed by the sizes of the last two families, which so keep all channels.
    sizes = {"ffn": shape.inner_size}
    if name not in ("gpt2", "bert"):
        sizes |= {"heads": shape.groups, "hidden": shape.hidden_size}
    for dimension, size in sizes.items():
        keys = [key for key in LAYERED if key.endswith(dimension) and layers[key]]
        for index in (0, size // 2, size - 1):
            kept = [n for n in range(size) if n != index]
            cut = {key: dict.fromkeys(range(layers[key]), kept) for key in keys} or {"hidden": kept}
            gone = measure() - measure(**cut)
            scored = sum((found[key][..., index] ** 2).sum() for key in cut)
            assert gone == pytest.approx(scored, rel=1e-6), (dimension, index)
