"""Models: loaded, made, with LoRA, and written so that `from_pretrained` reads the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import tiny_models
from lmcore.ner.collator import GNERCollator
from lmcore.ner.models import (
    add_lora,
    find_model,
    load_model,
    load_tokenizer,
    make_model,
    make_tokenizer,
    save_model,
)
from lmcore.ner.recipes import LoraConfig, ScratchConfig
from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration, OpenBATokenizer
from lmcore.worlds.openba import write_piece_file

AUTO: dict[str, Any] = {"t5": AutoModelForSeq2SeqLM, "llama": AutoModelForCausalLM}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {kind: tiny_models.save(kind, place / kind) for kind in AUTO}


def compute_logits(model: Any, tokenizer: Any) -> torch.Tensor:
    collator = GNERCollator(tokenizer, model=model)
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(**collator(tiny_models.make_rows(3))).logits
    return logits


def shake(model: Any) -> None:
    """Changes what is trained, since new matrices of LoRA come to nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.parametrize("kind", AUTO)
def test_a_folder_is_loaded_as_what_it_is(kind: str, folders: dict[str, Path]) -> None:
    model, tokenizer = load_model(folders[kind]), load_tokenizer(folders[kind])
    assert model.config.is_encoder_decoder == (kind == "t5")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert tokenizer.padding_side == "right"
    own = {"t5": tiny_models.make_t5, "llama": tiny_models.make_llama}[kind](tokenizer)
    assert torch.equal(compute_logits(model, tokenizer), compute_logits(own, tokenizer))


@pytest.mark.parametrize("kind", AUTO)
@pytest.mark.parametrize("save", ["whole", "merged", "adapter"])
def test_what_is_saved_is_loaded(
    kind: str, save: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model, tokenizer = load_model(folders[kind]), load_tokenizer(folders[kind])
    before = compute_logits(model, tokenizer)
    if save != "whole":
        targets = ("v", "wo") if kind == "t5" else ("v_proj", "down_proj")
        model = add_lora(model, LoraConfig(rank=2, alpha=3, targets=targets))
        assert all("lora_" in n for n, p in model.named_parameters() if p.requires_grad)
        assert torch.allclose(compute_logits(model, tokenizer), before)
    shake(model)
    expected = compute_logits(model, tokenizer)
    assert not torch.allclose(expected, before, atol=1e-3)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    save_model(model, tokenizer, tmp_path, save="adapter" if save == "adapter" else "merged")
    # Saving changes no bit of what is trained on.
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    if save == "adapter":
        sizes = [(tmp_path / "adapter_model.safetensors"), folders[kind] / "model.safetensors"]
        assert sizes[0].stat().st_size < sizes[1].stat().st_size
        assert not (tmp_path / "model.safetensors").exists()
    else:
        again = AUTO[kind].from_pretrained(tmp_path, dtype=torch.float32)
        assert again.state_dict().keys() == load_model(folders[kind]).state_dict().keys()
        assert (compute_logits(again, tokenizer) - expected).abs().max() < 1e-5
    mine = load_model(tmp_path)
    assert (compute_logits(mine, tokenizer) - expected).abs().max() < 1e-5
    read = load_tokenizer(tmp_path)
    assert read("Ada met").input_ids == tokenizer("Ada met").input_ids


def test_lora_needs_layers_that_exist(folders: dict[str, Path]) -> None:
    model = load_model(folders["t5"])
    message = (
        "lora.targets: 'query' is no linear layer of a T5ForConditionalGeneration; there are "
        "q, k, v, o, wi, wo, lm_head"
    )
    with pytest.raises(ValueError, match=message):
        add_lora(model, LoraConfig(rank=2, targets=("q", "query")))
    trained = add_lora(model, LoraConfig(rank=2))
    names = [name for name, p in trained.named_parameters() if p.requires_grad]
    assert {name.split(".lora_")[0][-1] for name in names} == {"q", "v"}
    other = load_model(folders["llama"])
    other.config.model_type = "unheard-of"
    with pytest.raises(ValueError, match=r"lora.targets must be given for a LlamaForCausalLM: its"):
        add_lora(other, LoraConfig(rank=2))


# From nothing.


def test_a_tokenizer_of_bytes_writes_any_text(tmp_path: Path) -> None:
    rows = tiny_models.make_rows(54)
    texts = [row[key] for row in rows for key in ("instruction", "target")]
    tokenizer = make_tokenizer(texts, 320)
    assert len(tokenizer) <= 320
    assert make_tokenizer(texts, 320).get_vocab() == tokenizer.get_vocab()
    for text in (*texts[:4], "爱达 Ω\n x", "naïve (B-ort)", "🙂"):
        ids = tokenizer(text).input_ids
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    # A word has one form in the middle and at the beginning.
    ada = tokenizer("Ada").input_ids[:-1]
    assert tokenizer("Bob Ada").input_ids[-1 - len(ada) : -1] == ada
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(texts).input_ids == tokenizer(texts).input_ids
    assert again.decode(again("Ada Ω").input_ids, skip_special_tokens=True).strip() == "Ada Ω"


def test_a_model_from_nothing(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(["Ada met Bob"], 300)
    torch.manual_seed(3)
    model = make_model(ScratchConfig(hidden_size=16, decoder_layers=1), tokenizer)
    assert (model.config.num_layers, model.config.num_decoder_layers) == (2, 1)
    save_model(model, tokenizer, tmp_path)
    expected = compute_logits(model, tokenizer)
    assert torch.equal(compute_logits(load_model(tmp_path), tokenizer), expected)
    generated = model.generate(**tokenizer("Ada", return_tensors="pt"), max_new_tokens=2)
    assert generated[0, 0] == tokenizer.pad_token_id


# What is no model.


@pytest.mark.parametrize("name", ["", "./none", "/none/at/all", "a/b/c", __file__])
def test_names_that_are_no_folder(name: str) -> None:
    with pytest.raises(ValueError, match="no such folder of a model"):
        find_model(name)


def test_a_name_of_elsewhere_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_model("google/flan-t5-small") == "google/flan-t5-small"


def test_folders_that_are_no_model(tmp_path: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"not a model: there is no config\.json in it"):
        load_model(tmp_path)
    config = tmp_path / "config.json"
    for content in ("", "[]", "{}", '{"model_type": "sasrec"}', '{"model_type": "t5"}', "[" * 9999):
        config.write_text(content)
        with pytest.raises(ValueError, match=r"not a model that can be loaded"):
            load_model(tmp_path)
    with pytest.raises(ValueError, match=r"not a tokenizer that can be loaded"):
        load_tokenizer(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 40)
    config.write_text((folders["t5"] / "config.json").read_text())
    with pytest.raises(ValueError, match=r"not a model that can be loaded"):
        load_model(tmp_path)


def test_weights_that_are_missing_are_not_drawn(
    tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(folders["t5"] / "model.safetensors")
    del weights["encoder.block.0.layer.0.SelfAttention.q.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((folders["t5"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"lacks 1 weights of a T5For.*, first encoder\.block\.0"):
        load_model(tmp_path)
    assert capsys.readouterr().err == ""
    del content["decoder_start_token_id"]
    save_file(
        load_file(folders["t5"] / "model.safetensors"),
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"config.json must hold decoder_start_token_id"):
        load_model(tmp_path)


def test_an_adapter_without_its_model(tmp_path: Path, folders: dict[str, Path]) -> None:
    model = add_lora(load_model(folders["t5"]), LoraConfig(rank=1))
    save_model(model, load_tokenizer(folders["t5"]), tmp_path, save="adapter")
    file = tmp_path / "adapter_config.json"
    content = json.loads(file.read_text())
    assert content["base_model_name_or_path"] == str(folders["t5"])
    file.write_text(json.dumps({**content, "base_model_name_or_path": "/none"}))
    with pytest.raises(ValueError, match="/none: no such folder of a model"):
        load_model(tmp_path)
    file.write_text(json.dumps({**content, "base_model_name_or_path": None}))
    with pytest.raises(ValueError, match=r"adapter_config.json does not name a model"):
        load_model(tmp_path)
    file.write_text("{")
    with pytest.raises(ValueError, match="not an adapter that can be loaded"):
        load_model(tmp_path)


def test_a_folder_of_openba_opens_without_its_package(tmp_path: Path) -> None:
    """Who loads a folder need not know whose model is in it."""
    write_piece_file(tmp_path / "spiece.model")
    tokenizer = OpenBATokenizer(tmp_path / "spiece.model")
    config = OpenBAConfig(
        vocab_size=tokenizer.padded_size(), hidden_size=8, encoder_layers=1, decoder_layers=2
    )
    OpenBAForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    code = (
        "import sys; from lmcore.training.models import load_model, load_tokenizer\n"
        "print(type(load_model(sys.argv[1])).__name__, type(load_tokenizer(sys.argv[1])).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "OpenBAForConditionalGeneration OpenBATokenizer\n"
