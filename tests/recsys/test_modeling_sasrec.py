"""SASRec in the released form: names, start, quirks, dropout of packed positions, foreign files."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lmcore.ops._dispatch import use
from lmcore.recsys import SASRecConfig, SASRecModel, load_sasrec


def make_model(**options: object) -> SASRecModel:
    torch.manual_seed(0)
    sizes = {"item_count": 20, "max_length": 6, "hidden_size": 8, "num_attention_heads": 2}
    return SASRecModel(SASRecConfig(**{**sizes, **options}))


def forward_as_published(model: SASRecModel, sequences: Tensor) -> Tensor:
    """The forward pass of the specification, by torch's own attention module."""
    held = (sequences != 0).unsqueeze(-1)
    length = sequences.shape[1]
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    x = model.item_emb(sequences) * model.config.hidden_size**0.5
    x = (x + model.pos_emb(torch.arange(length))) * held
    for norm_a, attention, norm_f, feed_forward in zip(
        model.attention_layernorms,
        model.attention_layers,
        model.forward_layernorms,
        model.forward_layers,
        strict=True,
    ):
        query = norm_a(x).transpose(0, 1)
        keys = x.transpose(0, 1)
        attended, _ = attention(query, keys, keys, attn_mask=later, need_weights=False)
        x = norm_f((query + attended).transpose(0, 1))
        inner = torch.relu(feed_forward.conv1(x.transpose(1, 2)))
        x = (x + feed_forward.conv2(inner).transpose(1, 2)) * held
    return model.last_layernorm(x)


SEQUENCES = torch.tensor([[0, 0, 3, 9, 1, 1], [0] * 6, [4, 5, 6, 7, 8, 20], [0, 0, 0, 0, 0, 2]])


def test_names_are_those_of_the_release() -> None:
    block = (
        "attention_layernorms.{}.weight attention_layernorms.{}.bias "
        "attention_layers.{}.in_proj_weight attention_layers.{}.in_proj_bias "
        "attention_layers.{}.out_proj.weight attention_layers.{}.out_proj.bias "
        "forward_layernorms.{}.weight forward_layernorms.{}.bias "
        "forward_layers.{}.conv1.weight forward_layers.{}.conv1.bias "
        "forward_layers.{}.conv2.weight forward_layers.{}.conv2.bias"
    )
    names = {"item_emb.weight", "pos_emb.weight", "last_layernorm.weight", "last_layernorm.bias"}
    for layer in range(2):
        names |= set(block.replace("{}", str(layer)).split())
    state = make_model().state_dict()
    assert set(state) == names
    assert state["forward_layers.0.conv1.weight"].shape == (8, 8, 1)


def test_number_of_parameters() -> None:
    items, length, h, blocks = 20, 6, 8, 2
    expected = (items + 1 + length) * h + blocks * (6 * h * h + 10 * h) + 2 * h
    assert sum(parameter.numel() for parameter in make_model().parameters()) == expected


def test_forward_is_the_published_one() -> None:
    model = make_model().eval()
    # Biases start at zero, where a wrong use of them would not show.
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    with torch.no_grad():
        expected = forward_as_published(model, SEQUENCES)
        torch.testing.assert_close(model(SEQUENCES), expected, atol=1e-5, rtol=1e-5)
        flat_indices = SEQUENCES.flatten().nonzero().squeeze(1)
        packed = model.forward_packed(SEQUENCES, flat_indices)
        expected = expected.flatten(0, 1)[flat_indices]
        torch.testing.assert_close(packed, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("way", [None, "kernel"])
def test_attention_by_lengths_is_the_same(way: Any) -> None:
    """Where there are items, and so are all gradients; padding makes no queries."""
    if way is not None:
        pytest.importorskip("triton")
    sequences = torch.tensor([[0, 0, 0, 3, 9], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0], [0, 0, 4, 0, 7]])
    found = []
    for options in ({}, {"attn_implementation": "lmcore"}):
        model = make_model(max_length=5, num_attention_heads=2, dropout=0.0, **options)
        with use(way) if way and options else nullcontext():
            features = model(sequences)[sequences != 0]
            weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
            (features * weights).sum().backward()
        found.append([features.detach(), *(each.grad for each in model.parameters())])
    for expected, own in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)


def test_dropout_by_lengths_follows_torch() -> None:
    model = make_model(max_length=5, attn_implementation="lmcore").train()
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(model(torch.tensor([[0, 1, 2, 3, 4]])))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_padding_gets_attention() -> None:
    """A quirk of the release: the same items with more padding have other features."""
    model = make_model().eval()
    with torch.no_grad():
        model.attention_layers[0].in_proj_bias.normal_()
        model.pos_emb.weight.zero_()
        shifted = torch.tensor([[0, 0, 0, 3, 9, 0], [0, 0, 0, 0, 3, 9]])
        features = model(shifted)
    assert not torch.allclose(features[0, 4], features[1, 5], atol=1e-3)


def test_bias_of_keys_has_no_gradient() -> None:
    model = make_model().train()
    model(SEQUENCES).square().sum().backward()
    for attention in model.attention_layers:
        query, key, value = attention.in_proj_bias.grad.chunk(3)
        assert key.abs().max() == 0
        assert query.abs().max() > 0
        assert value.abs().max() > 0


def test_start_of_weights() -> None:
    model = make_model(item_count=4000, hidden_size=64)
    for name, weight in model.state_dict().items():
        if weight.ndim >= 2:
            # Xavier: variance 2 / (fan in + fan out)
            expected = (2 / (weight.shape[0] + weight.shape[1])) ** 0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.15), name
        elif "conv" in name:
            assert 0.05 < weight.abs().max() <= 0.125
        elif "norm" in name and name.endswith("weight"):
            assert torch.equal(weight, torch.ones_like(weight))
        else:
            assert weight.abs().max() == 0, name
    assert model.item_emb.weight[0].abs().max() > 0


def test_dropout_of_packed_positions_has_the_same_distribution() -> None:
    """Mean and spread of the attended values over many draws, padding and all."""
    model = make_model(dropout=0.4, num_hidden_layers=1).train()
    with torch.no_grad():
        model.attention_layers[0].in_proj_bias.normal_()
    copies = 4000
    sequences = SEQUENCES[[0, 3]].repeat(copies, 1)
    flat_indices = sequences.flatten().nonzero().squeeze(1)
    with torch.no_grad():
        padded = model(sequences).flatten(0, 1)[flat_indices].view(copies, -1)
        packed = model.forward_packed(sequences, flat_indices).view(copies, -1)
    spread = padded.std(0)
    error = (padded.mean(0) - packed.mean(0)).abs() / (spread * (2 / copies) ** 0.5)
    assert error.max() < 4.5
    torch.testing.assert_close(packed.std(0), spread, rtol=0.08, atol=0.01)


def test_positions_without_an_item() -> None:
    with pytest.raises(ValueError, match="flat_indices must be positions that hold an item: got 1"):
        make_model().forward_packed(SEQUENCES, torch.tensor([1, 3]))


def test_heads_divide_the_size() -> None:
    with pytest.raises(Exception, match="multiple of num_attention_heads: got 8 and 3"):
        make_model(num_attention_heads=3)


# Foreign files.


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_state_dicts_of_others_load(tmp_path: Path, suffix: str) -> None:
    model = make_model(num_hidden_layers=3).eval()
    path = tmp_path / f"sasrec{suffix}"
    if suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    loaded = load_sasrec(path, num_attention_heads=2).eval()
    assert loaded.config.num_hidden_layers == 3
    with torch.no_grad():
        assert torch.equal(loaded(SEQUENCES), model(SEQUENCES))


def test_golden_weights_load(golden_dir: Path) -> None:
    config = load_sasrec(golden_dir / "sasrec/before.safetensors").config
    assert (config.item_count, config.max_length, config.hidden_size) == (60, 12, 16)
    assert config.num_hidden_layers == 2


def test_files_that_hold_no_sasrec(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_sasrec(tmp_path / "none.pth")
    path = tmp_path / "text.pth"
    path.write_text("text")
    with pytest.raises(ValueError, match="not a file of weights"):
        load_sasrec(path)
    path = tmp_path / "text.safetensors"
    path.write_text("text")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_sasrec(path)
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"item_emb\.weight is missing"):
        load_sasrec(tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="must hold a dict of tensors: got list"):
        load_sasrec(tmp_path / "list.pth")
    torch.save(
        {"item_emb.weight": torch.ones(3), "pos_emb.weight": torch.ones(2, 2)},
        path := tmp_path / "flat.pth",
    )
    with pytest.raises(ValueError, match=r"must be \[rows, H\]: got \[3\] and \[2, 2\]"):
        load_sasrec(path)
    state = make_model().state_dict()
    torch.save(state, tmp_path / "heads.pth")
    with pytest.raises(ValueError, match="multiple of the attention heads"):
        load_sasrec(tmp_path / "heads.pth", num_attention_heads=3)
    del state["last_layernorm.bias"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"last_layernorm\.bias"):
        load_sasrec(tmp_path / "part.pth")
