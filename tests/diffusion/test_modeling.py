"""The network: names, files, types, Auto classes, starts, a compiled graph, bad input."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from lmcore.diffusion import TextDiffusionConfig, TextDiffusionModel
from lmcore.diffusion.modeling_text_diffusion import make_sinusoids
from tiny_diffusion import draw, make_config, make_model

LATENTS, TIMES = draw(2, 9, 6), torch.tensor([0.5, 999.5])


@pytest.fixture(scope="module")
def model() -> TextDiffusionModel:
    return make_model()


def bert_layer(model: TextDiffusionModel, place: int) -> nn.TransformerEncoderLayer:
    """Torch's own layer with the weights of one of ours."""
    state = {
        name.removeprefix(f"input_transformers.layer.{place}."): tensor
        for name, tensor in model.state_dict().items()
        if name.startswith(f"input_transformers.layer.{place}.")
    }
    layer = nn.TransformerEncoderLayer(
        16, 4, 24, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    )
    parts = [f"attention.self.{name}" for name in ("query", "key", "value")]
    weights = {"linear1": "intermediate.dense", "linear2": "output.dense",
               "norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm",
               "self_attn.out_proj": "attention.output.dense"}  # fmt: skip
    renamed = {
        f"{own}.{kind}": state[f"{theirs}.{kind}"]
        for own, theirs in weights.items()
        for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):
        renamed[f"self_attn.in_proj_{kind}"] = torch.cat([state[f"{p}.{kind}"] for p in parts])
    layer.load_state_dict(renamed)
    return layer.eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager", "lmcore"])
def test_forward_is_the_specification(attention: str) -> None:
    """With torch's own layers, where every parameter matters."""
    model = make_model(attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(draw(*parameter.shape, seed=parameter.numel()), alpha=0.2)
        up, down, time = model.input_up_proj, model.output_down_proj, model.time_embed
        told = functional.silu(time[0](make_sinusoids(TIMES, 8)))
        states = up[2](torch.tanh(up[0](LATENTS))) + model.position_embeddings.weight[:9]
        states = model.LayerNorm(states + time[2](told)[:, None])
        for place in range(2):
            states = bert_layer(model, place)(states)
        expected = down[2](torch.tanh(down[0](states)))
        found = model(LATENTS, TIMES)
        assert found.shape == LATENTS.shape
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_sinusoids_are_cosines_and_then_sines() -> None:
    found = make_sinusoids(torch.tensor([0.0, 2.0]), 4)
    rates = torch.tensor([1.0, 0.01])
    expected = torch.stack([torch.tensor([1.0, 1, 0, 0]),
                            torch.cat([(2 * rates).cos(), (2 * rates).sin()])])  # fmt: skip
    torch.testing.assert_close(found, expected)


def test_names_are_those_of_the_release(model: TextDiffusionModel) -> None:
    layer = [f"attention.self.{part}" for part in ("query", "key", "value")]
    layer += ["attention.output.dense", "attention.output.LayerNorm", "intermediate.dense"]
    layer += ["output.dense", "output.LayerNorm"]
    modules = [f"input_transformers.layer.{place}.{name}" for place in range(2) for name in layer]
    modules += [f"{name}.{place}" for name in ("time_embed", "input_up_proj", "output_down_proj")
                for place in (0, 2)]  # fmt: skip
    modules += ["lm_head", "LayerNorm"]
    names = {f"{name}.{kind}" for name in modules for kind in ("weight", "bias")}
    names |= {"word_embedding.weight", "position_embeddings.weight"}
    assert set(model.state_dict()) == names
    assert model.lm_head.weight is model.word_embedding.weight


def test_latents_of_the_hidden_size_have_no_projection() -> None:
    """As in the released code."""
    model = make_model(latent_size=16)
    assert not any("proj" in name for name in model.state_dict())
    assert model(draw(1, 3, 16), TIMES[:1]).shape == (1, 3, 16)


# Files.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_saved_model_is_the_same_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    model = make_model().to(dtype)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=dtype)
    assert type(loaded) is TextDiffusionModel
    assert loaded.lm_head.weight is loaded.word_embedding.weight
    assert loaded.config.to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    latents = LATENTS.to(dtype)
    assert torch.equal(loaded(latents, TIMES), model(latents, TIMES))
    with pytest.raises(Exception, match="latent_size must be at least 1"):
        AutoConfig.for_model("text_diffusion", latent_size=0)


def test_released_names_load_without_a_word(tmp_path: Path, model: TextDiffusionModel) -> None:
    """A folder with the file of the release, its table of positions among it."""
    from safetensors.torch import save_file

    state = {name: tensor for name, tensor in model.state_dict().items() if name[:2] != "lm"}
    state["lm_head.bias"] = model.lm_head.bias.detach()
    save_file({**state, "position_ids": torch.arange(12)[None]}, tmp_path / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    model.config.save_pretrained(tmp_path)
    loaded, report = TextDiffusionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(loaded(LATENTS, TIMES), model(LATENTS, TIMES))


# Types, training and graphs.


def test_bfloat16_is_near_and_knows_its_time() -> None:
    """Times up to 1000 have no place in bfloat16: the sinusoids are made in float32."""
    exact, model = make_model(), make_model().bfloat16()
    times = torch.tensor([800.0, 801.0])
    latents = LATENTS[:1].expand(2, -1, -1)
    found = model(latents.bfloat16(), times)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact(latents, times), atol=0.05, rtol=0.05)
    assert not torch.equal(found[0], found[1])


def test_dropout_and_recomputation() -> None:
    model = make_model(dropout=0.3, attention_dropout=0.3).train()
    assert not torch.equal(model(LATENTS, TIMES), model(LATENTS, TIMES))
    gradients = []
    for recompute in (False, True):
        if recompute:
            model.activation_checkpointing_enable()
        torch.manual_seed(1)
        model.zero_grad()
        model(LATENTS, TIMES).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_positions_and_words_matter_to_each_other(model: TextDiffusionModel) -> None:
    """Nothing is masked: the last position changes the first, and padding is like any token."""
    changed = LATENTS.clone()
    changed[:, -1] += 1
    assert (model(changed, TIMES)[:, 0] != model(LATENTS, TIMES)[:, 0]).any(1).all()


def test_the_graph_compiles_in_one_piece(model: TextDiffusionModel) -> None:
    """Tracing alone: what generates code from the graph needs a compiler and takes a minute."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its own modules
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        with torch.no_grad():
            torch.testing.assert_close(compiled(LATENTS, TIMES), model(LATENTS, TIMES))


def test_starts_are_those_of_torch_s_layers() -> None:
    model = make_model(vocab_size=3000, hidden_size=64, intermediate_size=64, time_size=32)
    state = model.state_dict()
    for name in ("word_embedding.weight", "position_embeddings.weight"):
        assert state[name].std() == pytest.approx(1, rel=0.1)
    weight, bias = (
        state[f"input_transformers.layer.0.output.dense.{k}"] for k in ("weight", "bias")
    )
    for tensor in (weight, bias):  # uniform within 1 / sqrt(inputs)
        assert 0.9 / 8 < tensor.abs().max() <= 1 / 8
    assert weight.std() == pytest.approx(1 / 8 / 3**0.5, rel=0.1)
    assert 0.9 / 6**0.5 < state["lm_head.bias"].abs().max() <= 6**-0.5
    assert torch.equal(state["LayerNorm.weight"], torch.ones(64))


# What does not fit.

X, T = LATENTS, TIMES


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ((X[0], T), ValueError, "latents must have the shape [batch, length, 6]: got [9, 6]"),
        ((X[..., :5], T), ValueError,
         "latents must have the shape [batch, length, 6]: got [2, 9, 5]"),
        ((X.repeat(1, 2, 1), T), ValueError, "latents must have at most 12 positions: got 18"),
        ((X, T[:1]), ValueError, "timesteps must have the shape [2]: got [1]"),
        ((X, torch.tensor(3.0)), ValueError, "timesteps must have the shape [2]: got []"),
        ((X, T.long()), TypeError, "timesteps must be of floating point: got torch.int64"),
        ((X, T - 1), ValueError, "timesteps must be from 0 to 1000: got -0.5 in row 0"),
        ((X, T + 1), ValueError, "timesteps must be from 0 to 1000: got 1000.5 in row 1"),
        ((X, T * torch.nan), ValueError, "timesteps must be from 0 to 1000: got nan in row 0"),
    ],
)  # fmt: skip
def test_latents_and_times_that_do_not_fit(
    model: TextDiffusionModel, arguments: Any, kind: Any, text: str
) -> None:
    with pytest.raises(kind) as error:
        model(*arguments)
    assert str(error.value) == text


def test_ids_that_do_not_fit(model: TextDiffusionModel) -> None:
    assert model.embed(torch.empty(0, 3, dtype=torch.int32)).shape == (0, 3, 6)
    with pytest.raises(IndexError, match=r"below the vocabulary 30: got 30 at \[1, 0\]"):
        model.embed(torch.tensor([[0], [30]]))
    with pytest.raises(TypeError, match=r"ids must be int64 or int32: got torch\.bool"):
        model.embed(torch.tensor([True]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1 and at most 2147483647: got 0"),
        ({"hidden_size": 2**40}, "hidden_size must be at least 1 and at most 65536"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be at least 1 and at most 1000"),
        ({"num_attention_heads": 3}, "hidden_size must be a multiple of num_attention_heads: "
         "got 16 and 3"),
        ({"time_size": 7}, "time_size must be even: got 7"),
        ({"dropout": 1.0}, "dropout must be in [0, 1): got 1.0"),
        ({"attention_dropout": float("nan")}, "attention_dropout must be in [0, 1): got nan"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps must be above 0 and finite: got 0.0"),
        ({"pad_token_id": 30}, "pad_token_id must be an id below vocab_size 30: got 30"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings must be true"),
        ({"diffusion_steps": 0}, "diffusion_steps must be at least 1 and at most 1048576: got 0"),
        ({"hidden_size": "16"}, "hidden_size"),
    ],
)  # fmt: skip
def test_sizes_that_there_are_not(change: Any, text: str) -> None:
    with pytest.raises(Exception, match=re.escape(text)):
        make_config(**change)


def test_the_default_is_the_paper_s() -> None:
    config = TextDiffusionConfig()
    with torch.device("meta"):
        state = TextDiffusionModel(config).state_dict()
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    assert shapes["word_embedding.weight"] == [30522, 128]
    assert shapes["time_embed.0.weight"] == [512, 128]
    assert shapes["time_embed.2.weight"] == [768, 512]
    assert shapes["input_up_proj.0.weight"] == [768, 128]
    assert shapes["output_down_proj.2.weight"] == [128, 768]
    assert shapes["position_embeddings.weight"] == [512, 768]
    assert shapes["input_transformers.layer.11.intermediate.dense.weight"] == [3072, 768]
    assert (config.diffusion_steps, config.noise_schedule) == (2000, "sqrt")


def test_the_table_grows_with_its_vocabulary() -> None:
    model = make_model()
    model.resize_token_embeddings(32, mean_resizing=False)
    assert model.lm_head.weight is model.word_embedding.weight
    assert model.get_logits(LATENTS).shape == (2, 9, 32)
    assert model.config.vocab_size == 32
