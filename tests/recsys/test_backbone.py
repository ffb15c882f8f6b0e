"""Laws that every backbone obeys: packing, padding, causality, scores, files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModel

from lmcore.recsys import (
    FMLPConfig,
    FMLPModel,
    GRU4RecConfig,
    GRU4RecModel,
    LiGRConfig,
    LiGRModel,
    SASRecConfig,
    SASRecModel,
    SequenceModel,
)
from lmcore.recsys.backbone import cut_prefixes
from lmcore.recsys.objective import packed_logits, ufn_loss

ITEMS = 23
BACKBONES: list[tuple[Any, type[SequenceModel], dict[str, Any]]] = [
    (SASRecConfig, SASRecModel, {"num_attention_heads": 2}),
    (GRU4RecConfig, GRU4RecModel, {"gru_size": 16, "num_hidden_layers": 2}),
    (FMLPConfig, FMLPModel, {}),
    (LiGRConfig, LiGRModel, {"num_attention_heads": 2}),
]
backbones = pytest.mark.parametrize(
    "backbone", BACKBONES, ids=lambda backbone: backbone[1].__name__
)


def make_model(backbone: Any, *, length: int = 6, seed: int = 0, **options: Any) -> SequenceModel:
    torch.manual_seed(seed)
    config, model, extra = backbone
    sizes = {"item_count": ITEMS, "max_length": length, "hidden_size": 8}
    return model(config(**sizes, **extra, **options)).eval()


class Models(dict[tuple[type[SequenceModel], int], SequenceModel]):
    """One model per backbone and length: making one takes longer than using it."""

    def __missing__(self, key: tuple[type[SequenceModel], int]) -> SequenceModel:
        backbone = next(backbone for backbone in BACKBONES if backbone[1] is key[0])
        return self.setdefault(key, make_model(backbone, length=key[1]))


MODELS = Models()
# Features are of the order of 1, made of sums of up to 24 products.
ROUNDING = 1e-5


def make_windows(lengths: list[int], length: int, seed: int = 0) -> Tensor:
    """Right aligned windows with so many random items."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(1, ITEMS + 1, (len(lengths), length), generator=generator)
    columns = torch.arange(length)
    return items * (columns >= length - torch.tensor(lengths).view(-1, 1))


def find_flat_indices(sequences: Tensor) -> Tensor:
    return sequences.flatten().nonzero().squeeze(1)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Tensor, int]:
    length = draw(st.integers(1, 20))
    lengths = draw(st.lists(st.integers(0, length), max_size=7))
    seed = draw(st.integers(0, 99))
    return make_windows(lengths, length, seed).view(len(lengths), length), length


# Packing.


@backbones
@given(case=windows())
def test_packed_is_forward_at_the_ends_of_prefixes(backbone: Any, case: tuple[Tensor, int]) -> None:
    sequences, length = case
    model = MODELS[backbone[1], length]
    flat_indices = find_flat_indices(sequences)
    with torch.no_grad():
        packed = model.forward_packed(sequences, flat_indices)
        if model.is_causal:
            expected = model(sequences).flatten(0, 1)[flat_indices]
        else:
            expected = model(cut_prefixes(sequences, flat_indices))[:, -1]
    assert packed.shape == (len(flat_indices), 8)
    torch.testing.assert_close(packed, expected, atol=2e-6, rtol=1e-5)


@backbones
def test_packed_takes_some_of_the_positions(backbone: Any) -> None:
    model = make_model(backbone)
    sequences = make_windows([3, 0, 6, 1], 6)
    flat_indices = find_flat_indices(sequences)
    chosen = flat_indices[[0, 2, 5, 9]]
    with torch.no_grad():
        packed = model.forward_packed(sequences, flat_indices)
        torch.testing.assert_close(model.forward_packed(sequences, chosen), packed[[0, 2, 5, 9]])


@backbones
def test_gradients_of_both_ways_agree(backbone: Any) -> None:
    sequences = make_windows([3, 0, 6, 1, 4, 6], 6)
    flat_indices = find_flat_indices(sequences)
    gradients = []
    for way in ("packed", "base"):
        model = make_model(backbone)
        base = SequenceModel.forward_packed
        features = (
            model.forward_packed(sequences, flat_indices)
            if way == "packed"
            else base(model, sequences, flat_indices)
        )
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradient, gradients[1][name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


# Padding and time.


@backbones
def test_padding_row_gets_no_gradient(backbone: Any) -> None:
    model = make_model(backbone)
    model(make_windows([3, 0, 6], 6)).sum().backward()
    gradient = model.item_emb.weight.grad
    assert gradient is not None
    assert gradient[0].abs().max() == 0
    assert gradient[1:].abs().max() > 0


@backbones
def test_causality_is_what_it_says(backbone: Any) -> None:
    model = make_model(backbone)
    sequences = make_windows([6, 6], 6)
    changed = sequences.clone()
    changed[:, 4] = changed[:, 4] % ITEMS + 1
    with torch.no_grad():
        difference = (model(sequences) - model(changed)).abs().amax(-1)[:, :4]
    # Equal up to rounding, or in every position by more.
    assert bool((difference < ROUNDING).all()) == model.is_causal
    assert model.is_causal or bool((difference > 100 * ROUNDING).all())


@backbones
def test_packed_features_know_nothing_later(backbone: Any) -> None:
    model = make_model(backbone)
    sequences = make_windows([6, 3], 6)
    changed = sequences.clone()
    changed[:, 4] = changed[:, 4] % ITEMS + 1
    flat_indices = find_flat_indices(sequences)
    with torch.no_grad():
        difference = model.forward_packed(sequences, flat_indices) - model.forward_packed(
            changed, flat_indices
        )
    change = difference.abs().amax(1)
    assert torch.equal(change < ROUNDING, flat_indices % 6 < 4)
    assert change[flat_indices % 6 >= 4].min() > 100 * ROUNDING


@backbones
def test_rows_do_not_meet(backbone: Any) -> None:
    model = make_model(backbone)
    sequences = make_windows([2, 6, 0, 5], 6)
    with torch.no_grad():
        together = model(sequences)
        for row in range(4):
            alone = model(sequences[row : row + 1])[0]
            torch.testing.assert_close(together[row], alone, atol=1e-6, rtol=1e-5)


# Scores.


@backbones
def test_scores_of_catalogue_and_items_agree(backbone: Any) -> None:
    model = make_model(backbone)
    features = torch.randn(3, 8)
    items = torch.arange(1, ITEMS + 1).expand(3, -1)
    with torch.no_grad():
        catalogue = model.score_catalogue(features)
        assert catalogue.shape == (3, ITEMS)
        torch.testing.assert_close(model.score_items(features, items), catalogue)


# Seeds and files.


@backbones
def test_weights_follow_the_seed(backbone: Any) -> None:
    first, second, other = (make_model(backbone, seed=seed) for seed in (3, 3, 4))
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert not torch.equal(first.item_emb.weight, other.item_emb.weight)


@backbones
def test_dropout_acts_in_training_alone(backbone: Any) -> None:
    model = make_model(backbone)
    sequences = make_windows([4, 6], 6)
    flat_indices = find_flat_indices(sequences)
    for compute in (model, lambda s: model.forward_packed(s, flat_indices)):
        model.eval()
        assert torch.equal(compute(sequences), compute(sequences))
        model.train()
        assert not torch.equal(compute(sequences), compute(sequences))


@backbones
def test_round_trip(backbone: Any, tmp_path: Path) -> None:
    model = make_model(backbone)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert loaded.config.to_diff_dict() | {"dtype": None, "architectures": None} == (
        model.config.to_diff_dict() | {"dtype": None, "architectures": None}
    )
    assert model.state_dict().keys() == loaded.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


# Errors.


@backbones
@pytest.mark.parametrize("way", ["forward", "packed"])
@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        (torch.ones(2, 5, dtype=torch.long), ValueError, r"must have the shape \[batch, 6\]"),
        (torch.ones(6, dtype=torch.long), ValueError, r"got \[6\]"),
        (torch.ones(2, 6), TypeError, "must be int64 or int32: got torch.float32"),
        (torch.full((1, 6), ITEMS + 1), IndexError, f"got {ITEMS + 1} in row 0, position 0"),
        (torch.tensor([[0] * 6, [0, 0, 1, 1, -1, 1]]), IndexError, "-1 in row 1, position 4"),
    ],
    ids=["length", "dimensions", "dtype", "large", "negative"],
)
def test_errors(
    backbone: Any, way: str, sequences: Tensor, error: type[Exception], message: str
) -> None:
    model = make_model(backbone)
    flat_indices = [torch.tensor([0])] if way == "packed" else []
    compute = model.forward_packed if way == "packed" else model
    with pytest.raises(error, match=message):
        compute(sequences, *flat_indices)


@pytest.mark.parametrize("config", [backbone[0] for backbone in BACKBONES])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("item_count", 0, "item_count must be at least 1 and at most [0-9]+: got 0"),
        ("max_length", 0, "max_length must be at least 1 and at most [0-9]+: got 0"),
        ("hidden_size", -1, "hidden_size must be at least 1 and at most [0-9]+: got -1"),
        ("num_hidden_layers", 0, "num_hidden_layers must be at least 1 and at most [0-9]+: got 0"),
        (
            "item_count",
            2**31,
            "item_count must be at least 1 and at most 2147483647: got 2147483648",
        ),
        ("hidden_size", 2**63, "hidden_size must be at least 1 and at most 65536: got"),
        ("num_hidden_layers", 10**9, "num_hidden_layers must be at least 1 and at most 1000: got"),
        ("dropout", 1.0, "dropout must be at least 0 and below 1: got 1.0"),
        ("layer_norm_eps", -1.0, "layer_norm_eps must be at least 0 and finite: got -1.0"),
        ("item_count", "9", "expected int, got str"),
    ],
)
def test_wrong_sizes(config: Any, field: str, value: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):
        config(**{"item_count": 9, field: value})


# Learning.


@backbones
def test_it_learns_what_follows(backbone: Any) -> None:
    """Item i + 1 comes after item i: from windows of any length to the next item's first rank."""
    model = make_model(backbone, dropout=0.1).train()
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    lengths = torch.randint(1, 7, (32,), generator=generator)
    held = torch.arange(6) >= 6 - lengths[:, None]
    for _ in range(250):
        first = torch.randint(0, ITEMS, (32, 1), generator=generator)
        sequences = ((first + torch.arange(6)) % ITEMS + 1) * held
        positives = (sequences % ITEMS + 1) * held
        flat_indices = find_flat_indices(sequences)
        negatives = torch.randint(1, ITEMS + 1, (len(flat_indices), 10), generator=generator)
        logits = packed_logits(
            model.forward_packed(sequences, flat_indices),
            model.item_emb.weight,
            positives.flatten()[flat_indices],
            negatives,
        )
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1
        optimizer.zero_grad()
        ufn_loss(logits, labels, normalization="balanced").total.backward()
        optimizer.step()
    model.eval()
    last = torch.arange(ITEMS)[:, None]
    sequences = (last + torch.arange(-5, 1)) % ITEMS + 1
    with torch.no_grad():
        best = model.score_catalogue(model(sequences)[:, -1]).argmax(1) + 1
    assert (best == sequences[:, -1] % ITEMS + 1).float().mean() > 0.8
