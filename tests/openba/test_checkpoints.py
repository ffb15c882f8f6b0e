"""Folders of the released code: read, written, and refused by the names of what is wrong."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from lmcore.openba import (
    OpenBAConfig,
    OpenBAEncoderModel,
    OpenBAForConditionalGeneration,
    OpenBAModel,
)
from tiny_openba import SIZES, make_batch, make_config, make_model

SHARED, OURS = "shared_embedding.weight", "encoder.embed_tokens.weight"
DECODERS = "decoder.embed_tokens.weight"
# What the released files say, section 2.1 of the specification; sizes here are small.
COMMON = {
    "architectures": ["OpenBAForConditionalGeneration"], "model_type": "openba",
    "auto_map": {"AutoConfig": "configuration_openba.OpenBAConfig"},
    "add_ffn_bias": False, "add_lm_head_bias": True, "add_qkv_bias": True, "pad_token_id": 0,
    "eos_token_id": 1, "decoder_start_token_id": 0, "initializer_factor": 1.0,
    "is_encoder_decoder": True, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.33.2", "use_cache": True,
}  # fmt: skip
RELEASED = {
    "V1": {
        "vocab_size": 250368, "hidden_size": 4096, "kv_channels": 128, "num_heads": 40,
        "ffn_hidden_size": 16384, "num_layers": 12, "num_decoder_layers": 36,
        "max_seq_length": 1024, "decoder_max_seq_length": 1024, "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
    },
    "V1-Code": {
        "vocab_size": 250880, "hidden_size": 4096, "kv_channels": 128, "num_heads": 40,
        "ffn_hidden_size": 16384, "num_layers": 12, "num_decoder_layers": 36,
        "max_seq_length": 1024, "decoder_max_seq_length": 1024, "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
    },
    "V1-InstructGen": {
        "vocab_size": 250368, "hidden_size": 4096, "kv_channels": 128, "num_heads": 40,
        "ffn_hidden_size": 16384, "num_layers": 12, "num_decoder_layers": 36,
        "max_seq_length": 1024, "decoder_max_seq_length": 256, "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
    },
    "V2": {
        "vocab_size": 250240, "hidden_size": 2560, "kv_channels": 128, "num_heads": 20,
        "ffn_hidden_size": 6912, "num_layers": 8, "num_decoder_layers": 24,
        "max_seq_length": 1040, "decoder_max_seq_length": 1040, "hidden_dropout": 0,
        "attention_dropout": 0,
    },
}  # fmt: skip
# A folder of float32.
SMALL_CONFIG = {**COMMON, **SIZES, "torch_dtype": "float32"}
# Small sizes in their place; 384 gives 256 by V1's rule.
SMALL = {
    "vocab_size": 61, "hidden_size": 32, "kv_channels": 12, "num_heads": 4,
    "ffn_hidden_size": 384, "num_layers": 2, "num_decoder_layers": 3,
}  # fmt: skip


def same_weights(a: Any, b: Any) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def released_weights(model: OpenBAForConditionalGeneration) -> dict[str, Tensor]:
    weights = dict(model.state_dict())
    weights[SHARED] = weights.pop(OURS)
    return weights


def write_folder(
    folder: Path, config: dict[str, Any], weights: dict[str, Tensor], form: str = "safetensors"
) -> Path:
    """A folder as the released ones, in one file or in two shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    stem = "model" if form.startswith("safetensors") else "pytorch_model"
    kind = "safetensors" if form.startswith("safetensors") else "bin"

    def write(name: str, part: dict[str, Tensor]) -> None:
        if kind == "bin":
            torch.save(part, folder / name)
        else:
            save_file({k: v.clone() for k, v in part.items()}, folder / name, {"format": "pt"})

    if not form.endswith("shards"):
        write(f"{stem}.{kind}", weights)
        return folder
    names = sorted(weights)
    parts = [names[::2], names[1::2]]
    index: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"{stem}-{number:05}-of-00002.{kind}"
        write(file, {name: weights[name] for name in part})
        index |= dict.fromkeys(part, file)
    table = {"metadata": {"total_size": 0}, "weight_map": index}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(table))
    return folder


@pytest.fixture
def released(tmp_path: Path) -> tuple[Path, OpenBAForConditionalGeneration]:
    """A folder as of the released code and the model that it holds."""
    model = make_model()
    return write_folder(tmp_path / "released", SMALL_CONFIG, released_weights(model)), model


# What is read.


@pytest.mark.parametrize("name", RELEASED)
def test_released_configurations(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**COMMON, **RELEASED[name]}))
    config = OpenBAConfig.from_pretrained(tmp_path)
    for key, value in RELEASED[name].items():
        assert getattr(config, key) == value
    assert config.encoder_layers == RELEASED[name]["num_layers"]
    assert config.dtype == torch.float16
    assert config.swiglu_rule is None
    assert (config.tie_word_embeddings, config.add_lm_head_bias) == (False, True)


@pytest.mark.parametrize("form", ["safetensors", "safetensors shards", "bin", "bin shards"])
@pytest.mark.parametrize("name", RELEASED)
def test_released_folders(tmp_path: Path, name: str, form: str) -> None:
    """V2's other rule for the inner layers is told from the shape of the weights."""
    sizes = {**RELEASED[name], **SMALL}
    rule = name != "V2"
    model = make_model(**{**COMMON, **sizes, "swiglu_rule": rule, "encoder_layers": 2,
                          "decoder_layers": 3}).half()  # fmt: skip
    folder = write_folder(tmp_path, {**COMMON, **sizes}, released_weights(model), form)
    for cls in (OpenBAForConditionalGeneration, AutoModelForSeq2SeqLM):
        read = cls.from_pretrained(folder)
        assert type(read) is OpenBAForConditionalGeneration
        assert read.config.inner_size == (256 if rule else 384)
        assert read.config.swiglu_rule is rule
        assert read.dtype == torch.float16
        assert same_weights(read, model)
    read = OpenBAForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    assert same_weights(read, model.float())


def test_round_trips_are_equal_to_the_bit(
    tmp_path: Path, released: tuple[Path, OpenBAForConditionalGeneration]
) -> None:
    folder, model = released
    read = OpenBAForConditionalGeneration.from_pretrained(folder)
    original = load_file(folder / "model.safetensors")
    for saved, source in (("read", read), ("made", model)):
        theirs, ours = tmp_path / saved / "theirs", tmp_path / saved / "ours"
        source.save_pretrained(theirs)  # their names are the default
        source.save_pretrained(ours, save_original_format=False)
        written = load_file(theirs / "model.safetensors")
        assert written.keys() == original.keys()
        assert all(torch.equal(written[k], original[k]) for k in original)
        assert load_file(ours / "model.safetensors").keys() == model.state_dict().keys()
        for each in (theirs, ours):
            again = OpenBAForConditionalGeneration.from_pretrained(each)
            assert same_weights(again, model)
            assert {name: getattr(again.config, name) for name in SIZES} == SIZES


def test_many_shards_are_written_and_read(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 5
    assert same_weights(OpenBAForConditionalGeneration.from_pretrained(tmp_path), model)


def test_parts_read_a_folder_of_the_whole(
    tmp_path: Path, released: tuple[Path, OpenBAForConditionalGeneration]
) -> None:
    folder, model = released
    batch = make_batch()
    ids, mask = batch["input_ids"], batch["attention_mask"]
    encoder = OpenBAEncoderModel.from_pretrained(folder)
    states = encoder(ids, mask).last_hidden_state
    assert torch.equal(states, model.encoder(ids, mask).last_hidden_state)
    bare = OpenBAModel.from_pretrained(folder)
    assert torch.equal(
        bare.decoder.block[2].mlp.fc_in.weight, model.decoder.block[2].mlp.fc_in.weight
    )
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"it lacks lm_head\.bias, lm_head\.weight$"):
        OpenBAForConditionalGeneration.from_pretrained(tmp_path / "bare")
    encoder.save_pretrained(tmp_path / "encoder")
    assert same_weights(OpenBAEncoderModel.from_pretrained(tmp_path / "encoder"), encoder)


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("lacking", [{SHARED}, {OURS}, {DECODERS}, {SHARED, OURS}, {OURS, DECODERS},
                                     {SHARED, DECODERS}])  # fmt: skip
def test_any_name_of_the_embedding_will_do(tmp_path: Path, lacking: set[str], form: str) -> None:
    model = make_model()
    weights = released_weights(model)
    table = weights.pop(SHARED)
    weights |= {name: table for name in (SHARED, OURS, DECODERS) if name not in lacking}
    folder = write_folder(tmp_path, SMALL_CONFIG, weights, form)
    read = OpenBAForConditionalGeneration.from_pretrained(folder)
    assert same_weights(read, model)
    encoder = OpenBAEncoderModel.from_pretrained(folder)
    assert torch.equal(encoder.encoder.embed_tokens.weight, table)


def test_a_tied_model_reads_either_table(tmp_path: Path) -> None:
    model = make_model(tie_word_embeddings=True)
    weights = released_weights(model)
    config = {**SMALL_CONFIG, "tie_word_embeddings": True}
    for lacking in ([SHARED], ["lm_head.weight"], []):
        kept = {name: value for name, value in weights.items() if name not in lacking}
        folder = write_folder(tmp_path / f"without {lacking}", config, kept)
        read = OpenBAForConditionalGeneration.from_pretrained(folder)
        assert read.lm_head.weight is read.encoder.embed_tokens.weight
        assert same_weights(read, model)
        read.save_pretrained(tmp_path / "again")
        assert same_weights(
            OpenBAForConditionalGeneration.from_pretrained(tmp_path / "again"), model
        )


# What is refused.

Change = Callable[[dict[str, Tensor]], None]


def lose(*names: str) -> Change:
    return lambda weights: [weights.pop(name) for name in names] and None


def put(name: str, value: Tensor) -> Change:
    return lambda weights: weights.update({name: value})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lose(SHARED), "it lacks encoder.embed_tokens.weight (or shared_embedding.weight)"),
        (lose("lm_head.weight"), "it lacks lm_head.weight"),
        (lose("lm_head.bias", "decoder.block.2.inter_attn.kv.weight"),
         "it lacks decoder.block.2.inter_attn.kv.weight, lm_head.bias"),
        (put("encoder.block.2.mlp.fc_in.weight", torch.ones(2)),
         "the model has no encoder.block.2.mlp.fc_in.weight"),
        (put("decoder.position", torch.ones(2)), "the model has no decoder.position"),
        (put(SHARED, torch.ones(62, 32)),
         "encoder.embed_tokens.weight has the shape [62, 32] where [61, 32] is expected"),
        (put("encoder.block.0.self_attn.qkv.bias", torch.ones(3, 48)),
         "encoder.block.0.self_attn.qkv.bias has the shape [3, 48] where [144] is expected"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["safetensors", "bin", "safetensors shards"])
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, change: Change, named: str, form: str
) -> None:
    weights = released_weights(make_model())
    change(weights)
    folder = write_folder(tmp_path, SMALL_CONFIG, weights, form)
    for cls in (OpenBAForConditionalGeneration, AutoModelForSeq2SeqLM):
        with pytest.raises(ValueError, match="does not hold this model: ") as caught:
            cls.from_pretrained(folder)
        assert str(caught.value) == f"{folder} does not hold this model: {named}"


def test_several_problems_are_all_named(tmp_path: Path) -> None:
    weights = released_weights(make_model())
    del weights["lm_head.bias"]
    weights["extra"] = torch.ones(1)
    weights["lm_head.weight"] = torch.ones(3, 3)
    folder = write_folder(tmp_path, SMALL_CONFIG, weights)
    with pytest.raises(ValueError, match=r"lacks lm_head\.bias; .* no extra; lm_head\.weight has"):
        OpenBAForConditionalGeneration.from_pretrained(folder)


def test_two_embeddings_that_differ_are_refused(tmp_path: Path) -> None:
    weights = released_weights(make_model())
    weights[DECODERS] = weights[SHARED] + 1
    folder = write_folder(tmp_path, SMALL_CONFIG, weights)
    with pytest.raises(ValueError, match=r"decoder\.embed_tokens\.weight and shared_embedding"):
        OpenBAForConditionalGeneration.from_pretrained(folder)


def test_a_tied_model_refuses_a_head_of_its_own(tmp_path: Path) -> None:
    weights = released_weights(make_model())
    config = {**SMALL_CONFIG, "tie_word_embeddings": True}
    folder = write_folder(tmp_path, config, weights)
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from shared_embedding\.weight"):
        OpenBAForConditionalGeneration.from_pretrained(folder)


def test_sizes_of_another_model_are_refused(
    released: tuple[Path, OpenBAForConditionalGeneration],
) -> None:
    folder, _ = released
    for change in ({"encoder_layers": 3}, {"decoder_layers": 2}, {"kv_channels": 16}):
        with pytest.raises(ValueError, match="does not hold this model"):
            OpenBAForConditionalGeneration.from_pretrained(folder, config=make_config(**change))
    head = OpenBAForConditionalGeneration.from_pretrained(
        folder, config=make_config(vocab_size=70), ignore_mismatched_sizes=True
    )
    assert head.lm_head.weight.shape == (70, 32)


def test_files_that_are_damaged_are_refused(
    tmp_path: Path, released: tuple[Path, OpenBAForConditionalGeneration]
) -> None:
    folder, model = released
    data = (folder / "model.safetensors").read_bytes()
    for number, bad in enumerate((data[:-1], data[:100], b"", b"\xff" * 64)):
        broken = tmp_path / str(number)
        shutil.copytree(folder, broken)
        (broken / "model.safetensors").write_bytes(bad)
        with pytest.raises(ValueError, match=r"model\.safetensors is not a file of weights: "):
            OpenBAForConditionalGeneration.from_pretrained(broken)
    write_folder(tmp_path / "bin", SMALL_CONFIG, released_weights(model), "bin")
    data = (tmp_path / "bin" / "pytorch_model.bin").read_bytes()
    for bad in (data[:-1], data[:1000], b"", b"\xff" * 64):
        (tmp_path / "bin" / "pytorch_model.bin").write_bytes(bad)
        with pytest.raises(ValueError, match=r"bin: a file of weights cannot be read: "):
            OpenBAForConditionalGeneration.from_pretrained(tmp_path / "bin")


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    folder = write_folder(tmp_path, SMALL_CONFIG, {}, "bin")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(Exception, match=r"(?i)weights.only|unpickl"):
        OpenBAForConditionalGeneration.from_pretrained(folder)
    torch.save({"encoder.final_layernorm.bias": Attack()}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights.only|unpickl"):
        OpenBAForConditionalGeneration.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    weights = released_weights(make_model())
    folder = write_folder(tmp_path, SMALL_CONFIG, weights, "safetensors shards")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(OSError, match="model-00002-of-00002"):
        OpenBAForConditionalGeneration.from_pretrained(folder)
