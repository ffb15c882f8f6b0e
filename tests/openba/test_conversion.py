"""`openba.convert`: checkpoints of any number of ranks become the same model, bit for bit."""

import argparse
import json
import mmap
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import warm
from lmcore.openba import (
    OpenBAForConditionalGeneration,
    OpenBATokenizer,
    convert,
    joining,
    megatron,
)
from lmcore.worlds.openba import write_piece_file
from megatron_files import write_checkpoint
from tiny_openba import make_batch, make_model

RANK = "model_optim_rng.pt"


def make_trained(**changes: Any) -> OpenBAForConditionalGeneration:
    """A model whose table is its output layer as well, as in training."""
    model = make_model(**{"vocab_size": 64, "add_ffn_bias": False, **changes})
    with torch.no_grad():
        model.lm_head.weight.copy_(model.get_input_embeddings().weight)
    return model


@pytest.fixture(scope="module")
def model() -> OpenBAForConditionalGeneration:
    return make_trained()


@pytest.fixture
def source(tmp_path: Path, model: OpenBAForConditionalGeneration) -> Path:
    """A checkpoint of two ranks."""
    write_checkpoint(tmp_path / "training", model, 2)
    return tmp_path / "training"


def load(folder: Path) -> OpenBAForConditionalGeneration:
    found: OpenBAForConditionalGeneration = OpenBAForConditionalGeneration.from_pretrained(folder)
    return found.eval()


def change_rank(source: Path, rank: int, change: Callable[[dict[str, Any]], object]) -> Path:
    """Writes the file of a rank anew."""
    file = source / f"iter_0000123/mp_rank_{rank:02d}" / RANK
    with torch.serialization.safe_globals(
        [argparse.Namespace, *((megatron.Unread, name) for name in megatron._UNREAD)]
    ):
        content = torch.load(file, weights_only=True)
    content["rng_state"] = None
    for name in ("model_type", "lr"):
        vars(content["args"]).pop(name, None)
    change(content)
    torch.save(content, file)
    return file


def assert_refused(source: Path, *texts: str) -> None:
    """One error, with these texts, and nothing written."""
    before = sorted(source.parent.rglob("*"))
    with pytest.raises(ValueError, match=r".") as caught:
        convert(source, source.parent / "model")
    assert "\n" not in str(caught.value)
    for text in texts:
        assert text in str(caught.value)
    assert sorted(source.parent.rglob("*")) == before


# The same model.


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("changes", [{}, {"add_ffn_bias": True}, {"add_qkv_bias": False},
                                     {"add_lm_head_bias": False, "decoder_layers": 1}])  # fmt: skip
def test_any_number_of_ranks_gives_the_model(
    tmp_path: Path, ranks: int, changes: dict[str, Any]
) -> None:
    model = make_trained(**changes)
    write_checkpoint(tmp_path / "training", model, ranks)
    summary = convert(tmp_path / "training", tmp_path / "model")
    found = load(tmp_path / "model")
    expected = model.state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(found.state_dict()[name], x) for name, x in expected.items())
    batch = make_batch()
    with torch.no_grad():
        assert torch.equal(found(**batch).logits, model(**batch).logits)
    assert (summary.ranks, summary.iteration, summary.kept_files) == (ranks, 123, 0)
    assert summary.tensors == len(expected)
    assert summary.parameters == sum(x.numel() for x in expected.values())


def test_a_folder_as_save_pretrained_writes_it(
    tmp_path: Path, source: Path, model: OpenBAForConditionalGeneration
) -> None:
    convert(source, tmp_path / "model", max_shard_bytes=100_000)
    model.save_pretrained(tmp_path / "expected", max_shard_size=100_000)
    index = "model.safetensors.index.json"
    found, expected = (
        json.loads((tmp_path / name / index).read_text()) for name in ("model", "expected")
    )
    assert found["metadata"] == expected["metadata"]
    assert found["weight_map"].keys() == expected["weight_map"].keys()
    assert "shared_embedding.weight" in found["weight_map"]
    config = json.loads((tmp_path / "model/config.json").read_text())
    expected = json.loads((tmp_path / "expected/config.json").read_text())
    for name in ("hidden_dropout", "attention_dropout"):
        assert config.pop(name) == 0.1  # as in the arguments of the training
        expected.pop(name)
    assert config == expected
    assert not [path.name for path in tmp_path.rglob(".*")]


def test_the_rule_of_inner_layers_is_found(tmp_path: Path) -> None:
    model = make_trained(swiglu_rule=True, ffn_hidden_size=400)
    assert model.config.inner_size == 512
    write_checkpoint(tmp_path / "training", model, 2)
    convert(tmp_path / "training", tmp_path / "model")
    assert load(tmp_path / "model").config.swiglu_rule is True


def test_half_precision_stays(tmp_path: Path) -> None:
    model = make_trained().half()
    write_checkpoint(tmp_path / "training", model, 4)
    summary = convert(tmp_path / "training", tmp_path / "model")
    assert set(summary.dtypes) == {"float16"}
    found = load(tmp_path / "model")
    assert found.dtype == torch.float16
    name = "decoder.block.2.mlp.fc_out.weight"
    assert torch.equal(found.state_dict()[name], model.state_dict()[name])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_another_type(tmp_path: Path, dtype: str) -> None:
    model = make_trained().half()
    write_checkpoint(tmp_path / "training", model, 2)
    convert(tmp_path / "training", tmp_path / "model", dtype=dtype)
    found = load(tmp_path / "model")
    assert found.dtype == getattr(torch, dtype)
    expected = model.to(getattr(torch, dtype)).state_dict()
    assert all(torch.equal(found.state_dict()[name], x) for name, x in expected.items())


def test_a_weight_that_does_not_fit_another_type(source: Path, tmp_path: Path) -> None:
    def enlarge(content: dict[str, Any]) -> None:
        content["model"]["language_model"]["encoder"]["layers.1.mlp.w3.weight"][0, 0] = 1e6

    change_rank(source, 1, enlarge)
    with pytest.raises(ValueError, match=r"encoder\.block\.1\.mlp\.fc_in\.weight: a weight is too"):
        convert(source, tmp_path / "model", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["training"]


def test_weights_that_are_no_numbers_are_weights(source: Path, tmp_path: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        stack = content["model"]["language_model"]["decoder"]
        stack["layers.0.input_layernorm.weight"][3] = float("nan")
        stack["layers.0.inter_attention.dense.weight"][1, 2] = float("nan")
        stack["layers.0.inter_attention.dense.weight"][1, 3] = float("inf")

    for rank in (0, 1):
        change_rank(source, rank, spoil)
    convert(source, tmp_path / "model", dtype="bfloat16")
    found = load(tmp_path / "model").state_dict()
    assert found["decoder.block.0.input_layernorm.weight"].isnan().sum() == 1
    assert found["decoder.block.0.inter_attn.o.weight"].isnan().sum() == 2
    assert found["decoder.block.0.inter_attn.o.weight"].isinf().sum() == 2


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_sizes_of_blocks_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path, size: int
) -> None:
    convert(source, tmp_path / "whole", dtype="bfloat16")
    monkeypatch.setattr(joining, "_BLOCK_BYTES", size)
    convert(source, tmp_path / "parts", dtype="bfloat16")
    name = "model.safetensors"
    assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_tokenizer_goes_along(source: Path, tmp_path: Path) -> None:
    write_piece_file(tmp_path / "large.model")
    with pytest.raises(ValueError, match=r"large\.model: it has \d+ tokens, and the model 64"):
        convert(source, tmp_path / "model", tokenizer=tmp_path / "large.model")
    assert not (tmp_path / "model").exists()
    words = OpenBATokenizer(tmp_path / "large.model")
    model = make_trained(vocab_size=words.padded_size(4))
    write_checkpoint(tmp_path / "other", model, 4)
    convert(tmp_path / "other", tmp_path / "model", tokenizer=tmp_path / "large.model")
    found = OpenBATokenizer.from_pretrained(tmp_path / "model")
    assert found("Ada met Otto.").input_ids == words("Ada met Otto.").input_ids
    # Rows that fill the table up stay.
    assert load(tmp_path / "model").config.vocab_size == words.padded_size(4) > len(words)


# Which checkpoint.


def test_iterations(source: Path, tmp_path: Path) -> None:
    other = make_trained(seed=5)
    write_checkpoint(source, other, 1, iteration=7)
    (source / "latest_checkpointed_iteration.txt").write_text("123\n")
    assert convert(source, tmp_path / "a").iteration == 123
    assert convert(source, tmp_path / "b", iteration=7).iteration == 7
    assert convert(source / "iter_0000007", tmp_path / "c").iteration == 7
    name = "encoder.final_layernorm.bias"
    assert torch.equal(load(tmp_path / "b").state_dict()[name], other.state_dict()[name])
    with pytest.raises(
        ValueError, match="holds no iter_0000008: it has iter_0000007, iter_0000123"
    ):
        convert(source, tmp_path / "d", iteration=8)
    with pytest.raises(ValueError, match="not the folder of iteration 8"):
        convert(source / "iter_0000007", tmp_path / "d", iteration=8)
    (source / "latest_checkpointed_iteration.txt").unlink()
    assert_refused(source, "no checkpoint of Megatron", "latest_checkpointed_iteration.txt")
    assert convert(source, tmp_path / "d", iteration=7).iteration == 7


def test_a_released_training_and_the_older_name(source: Path, tmp_path: Path) -> None:
    (source / "iter_0000123").rename(source / "release")
    (source / "latest_checkpointed_iteration.txt").write_text("release")
    for rank in (source / "release").iterdir():
        (rank / RANK).rename(rank / "model_rng.pt")
    assert convert(source, tmp_path / "model").ranks == 2


@pytest.mark.parametrize("text", ["", "x", "-3", "1" * 13, "../../etc", "12\x1b[2J"])
def test_a_tracker_that_names_none(source: Path, text: str) -> None:
    (source / "latest_checkpointed_iteration.txt").write_text(text)
    assert_refused(source, "latest_checkpointed_iteration.txt: expected the number")


# Checkpoints that are not whole.


def test_a_rank_is_missing(source: Path, tmp_path: Path) -> None:
    base = source / "iter_0000123"
    (base / "mp_rank_01").rename(base / "mp_rank_02")
    assert_refused(source, "mp_rank_01 is missing")
    shutil.rmtree(base / "mp_rank_02")
    assert_refused(source, "mp_rank_00", "it is one of 2 ranks", "holds 1")
    (base / "mp_rank_00" / RANK).unlink()
    assert_refused(source, "holds neither model_optim_rng.pt nor model_rng.pt")


def test_ranks_of_two_sizes(tmp_path: Path, source: Path) -> None:
    other = make_trained()
    write_checkpoint(tmp_path / "four", other, 4)
    base = source / "iter_0000123"
    shutil.rmtree(base / "mp_rank_01")
    shutil.copytree(tmp_path / "four/iter_0000123/mp_rank_01", base / "mp_rank_01")
    assert_refused(source, "mp_rank_01", "it is one of 4 ranks", "holds 2")


def test_ranks_of_two_iterations(source: Path) -> None:
    file = change_rank(source, 1, lambda content: content.update(iteration=124))
    assert_refused(source, f"{file}: of iteration 124", "of 123")


def test_a_pipeline(source: Path) -> None:
    def divide(content: dict[str, Any]) -> None:
        content["args"].pipeline_model_parallel_size = 2

    change_rank(source, 0, divide)
    assert_refused(source, "of a pipeline")
    base = source / "iter_0000123"
    (base / "mp_rank_00").rename(base / "mp_rank_00_000")
    assert_refused(source, "mp_rank_00_000: of a pipeline")


def test_what_all_ranks_have_must_be_the_same(source: Path) -> None:
    def shift(content: dict[str, Any]) -> None:
        stack = content["model"]["language_model"]["decoder"]
        stack["layers.1.post_attention_layernorm.bias"][0] += 1
        stack["layers.2.self_attention.dense.bias"][0] += 1

    change_rank(source, 1, shift)
    assert_refused(
        source, "must be the same on all ranks", "decoder.layers.1.post_attention_layernorm.bias",
        "decoder.layers.2.self_attention.dense.bias",
    )  # fmt: skip


def test_tensors_that_lack_are_too_many_or_have_another_shape(source: Path) -> None:
    stack = "decoder"

    def drop(content: dict[str, Any]) -> None:
        del content["model"]["language_model"][stack]["layers.1.inter_attention.query.weight"]

    file = change_rank(source, 1, drop)
    name = "language_model.decoder.layers.1.inter_attention.query.weight"
    assert_refused(source, f"{file}: lacks {name}")

    def reshape(content: dict[str, Any]) -> None:
        found = content["model"]["language_model"][stack]
        found["layers.1.inter_attention.query.weight"] = torch.zeros(3, 32)

    change_rank(source, 1, reshape)
    assert_refused(source, f"{name} has the shape [3, 32] where [24, 32] is expected")

    def retype(content: dict[str, Any]) -> None:
        found = content["model"]["language_model"][stack]
        found["layers.1.inter_attention.query.weight"] = torch.zeros(24, 32).half()

    change_rank(source, 1, retype)
    assert_refused(source, f"{name} has the type F16 where F32 is expected")

    def count(content: dict[str, Any]) -> None:
        found = content["model"]["language_model"][stack]
        found["layers.1.inter_attention.query.weight"] = torch.zeros(24, 32, dtype=torch.int64)

    for rank in (0, 1):
        change_rank(source, rank, count)
    assert_refused(source, "has the type I64 where F16 or BF16 or F32 is expected")

    def add(content: dict[str, Any]) -> None:
        embedding = content["model"]["language_model"]["embedding"]
        embedding["position_embeddings"] = {"weight": torch.zeros(4, 32)}

    change_rank(source, 0, add)
    assert_refused(source, "the model has no language_model.embedding.position_embeddings.weight")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("padded_vocab_size", None, "args must have padded_vocab_size, a whole number: got None"),
        ("hidden_size", "32", "hidden_size, a whole number"),
        ("num_attention_heads", 4.0, "num_attention_heads, a whole number"),
        ("num_layers", True, "num_layers, a whole number"),
        ("kv_channels", 11, "kv_channels must be even"),
        ("decoder_num_layers", 10**9, "decoder_layers must be from 1 to 1000"),
        ("num_layers", 0, "encoder_layers must be from 1"),
        ("num_attention_heads", 5, "num_attention_heads must be a multiple of the 2 ranks: got 5"),
        ("padded_vocab_size", 63, "padded_vocab_size must be a multiple of the 2 ranks"),
        ("ffn_hidden_size", 41, "ffn_hidden_size 41 leaves inner layers of 256 or 41: got 40"),
        ("hidden_dropout", "x", "hidden_dropout must be a number"),
        ("hidden_dropout", float("nan"), "hidden_dropout must be in [0, 1)"),
        ("tensor_model_parallel_size", None, "args must have tensor_model_parallel_size"),
        ("hidden_size", 64, "has the shape"),
        ("hidden_size", "\x1b[2J", "a whole number: got '\\x1b[2J'"),
    ],
)  # fmt: skip
def test_arguments_of_no_model(source: Path, name: str, value: Any, text: str) -> None:
    for rank in (0, 1):
        change_rank(source, rank, lambda content: setattr(content["args"], name, value))
    assert_refused(source, RANK, text)


def test_a_decoder_as_deep_as_the_encoder_need_not_be_named(tmp_path: Path) -> None:
    def forget(content: dict[str, Any]) -> None:
        del content["args"].decoder_num_layers

    write_checkpoint(tmp_path / "training", make_trained(decoder_layers=2), 2)
    for rank in (0, 1):
        change_rank(tmp_path / "training", rank, forget)
    convert(tmp_path / "training", tmp_path / "model")
    assert load(tmp_path / "model").config.decoder_layers == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"args": None}, "it has no args"),
        ({"args": {"hidden_size": 4}}, "it has no args"),
        ({"model": None}, "it has no model"),
        ({"model": {}}, "lacks language_model.encoder.layers.0.mlp.w1.weight"),
        ({"model": {3: torch.ones(1)}}, "a tensor must have a name: got 3"),
        ({"model": {"a": [torch.ones(1)]}}, "a is no tensor: list"),
        ({"model": {"a": torch.ones(1).to_sparse()}}, "a is no plain tensor"),
        ({"model": {"a": torch.ones(1, dtype=torch.complex128)}}, "a has the unknown type"),
        ({"checkpoint_version": 1.0}, "checkpoint_version must be at least 2.0: got 1.0"),
        ({"checkpoint_version": None}, "checkpoint_version must be at least 2.0"),
        ({"checkpoint_version": float("nan")}, "checkpoint_version must be at least 2.0"),
        ({"iteration": torch.ones(3)}, "iteration must be a whole number"),
    ],
)  # fmt: skip
def test_files_that_are_no_checkpoint(source: Path, change: dict[str, Any], text: str) -> None:
    file = change_rank(source, 0, lambda content: content.update(change))
    assert_refused(source, str(file), text)


def test_names_of_tensors_are_shown_as_they_are_not(source: Path) -> None:
    """The command escapes them; here they are short, at least."""

    def add(content: dict[str, Any]) -> None:
        content["model"]["x\x1b[2J" * 1000] = torch.ones(1)

    change_rank(source, 0, add)
    with pytest.raises(ValueError, match="the model has no x") as caught:
        convert(source, source.parent / "model")
    assert len(str(caught.value)) < 500


def test_dicts_without_an_end(source: Path) -> None:
    def tie(content: dict[str, Any]) -> None:
        content["model"]["language_model"]["again"] = content["model"]

    change_rank(source, 0, tie)
    assert_refused(source, "is nested too deeply")


# Files that want to harm.


class Call:
    """Calls a function when it is read by a reader that trusts."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.system, "touch harmed"), "system"),
        (Call(eval, "1"), "eval"),
        (Call(getattr, "a", "upper"), "getattr"),
        (Call(shutil.rmtree, "/nowhere"), "shutil.rmtree"),
        (Path("a"), "pathlib."),
        (argparse.ArgumentParser, "argparse.ArgumentParser"),
    ],
)
@pytest.mark.parametrize("place", ["args", "model", "optimizer"])
def test_pickles_that_call(
    source: Path, monkeypatch: pytest.MonkeyPatch, call: Any, name: str, place: str
) -> None:
    monkeypatch.chdir(source.parent)

    def add(content: dict[str, Any]) -> None:
        if place == "args":
            content["args"].harm = call
        else:
            content[place]["harm"] = call

    file = change_rank(source, 1, add)
    assert_refused(source, f"{file}: not a file of weights: it names ", name, "never called")


def test_states_of_generators_are_never_made(source: Path, tmp_path: Path) -> None:
    """numpy's own classes would take a state of any size, and flags that say what bytes are."""

    def add(content: dict[str, Any]) -> None:
        import numpy as np

        content["rng_state"] = [np.zeros(3), np.dtype("O"), np.float32(1), np.dtypes.UInt32DType]

    change_rank(source, 0, add)
    content = megatron._load(source / "iter_0000123/mp_rank_00" / RANK)
    array, dtype, number, kind = content["rng_state"]
    assert all(type(found) is megatron.Unread for found in (array, dtype, number))
    assert kind is megatron.Unread
    convert(source, tmp_path / "model")


def test_the_list_of_names_is_not_kept(source: Path, tmp_path: Path) -> None:
    before = torch.serialization.get_safe_globals()
    convert(source, tmp_path / "model")
    assert torch.serialization.get_safe_globals() == before
    assert argparse.Namespace not in before


def rewrite(file: Path, change: Callable[[str, bytes], tuple[bytes, int]]) -> None:
    """Writes the records of a file anew, each with its compression."""
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in records.items():
            archive.writestr(zipfile.ZipInfo(name), *change(name, data))


def test_records_that_grow(source: Path) -> None:
    file = source / "iter_0000123/mp_rank_00" / RANK

    def blow_up(name: str, data: bytes) -> tuple[bytes, int]:
        grows = name.endswith("data.pkl")
        return (
            (data + bytes(1 << 24), zipfile.ZIP_DEFLATED) if grows else (data, zipfile.ZIP_STORED)
        )

    rewrite(file, blow_up)
    assert_refused(source, str(file), "data.pkl' is compressed, or not whole")


def test_an_order_of_bytes_that_would_turn_the_file(source: Path) -> None:
    file = source / "iter_0000123/mp_rank_00" / RANK

    def turn(name: str, data: bytes) -> tuple[bytes, int]:
        return (b"big" if name.endswith("byteorder") else data), zipfile.ZIP_STORED

    rewrite(file, turn)
    assert_refused(source, str(file), "another order of bytes")


@pytest.mark.parametrize("place", [0, 26, 40])
def test_a_record_whose_head_is_damaged(source: Path, place: int) -> None:
    """The list at the end names a record, and another head stands where it lies."""
    file = source / "iter_0000123/mp_rank_00" / RANK
    whole = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        [record] = [r for r in archive.infolist() if r.filename.endswith("byteorder")]
    whole[record.header_offset + place] ^= 1
    file.write_bytes(whole)
    assert_refused(source, str(file))


@pytest.mark.parametrize("elements", [4, 1 << 44])
def test_a_storage_of_another_size(source: Path, tmp_path: Path, elements: int) -> None:
    """One that says less than is taken from it is refused; what it says more is never asked for."""
    file = source / "iter_0000123/mp_rank_00" / RANK

    def say_otherwise(name: str, data: bytes) -> tuple[bytes, int]:
        if name.endswith("data.pkl"):
            # Of the table: 32 of its rows with 32 columns each.
            given = pickle.BININT2 + (1024).to_bytes(2, "little")
            said = pickle.LONG1 + b"\x06" + elements.to_bytes(6, "little")
            assert given in data
            data = data.replace(given, said)
        return data, zipfile.ZIP_STORED

    rewrite(file, say_otherwise)
    if elements < 1024:
        assert_refused(source, str(file))
    else:
        convert(source, tmp_path / "model")


def test_files_that_are_cut_off_or_old(source: Path) -> None:
    file = source / "iter_0000123/mp_rank_01" / RANK
    whole = file.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert_refused(source, str(file))
    torch.save({"model": {}}, file, _use_new_zipfile_serialization=False)
    assert_refused(source, f"{file}: has torch's old format, which cannot be mapped")
    file.write_bytes(b"[" * 200_000)
    assert_refused(source, f"{file}: not a whole file of torch")


def test_every_byte_of_the_pickle_may_be_changed(source: Path, tmp_path: Path) -> None:
    """One line, or a model: never another kind of error."""
    file = source / "iter_0000123/mp_rank_00" / RANK
    with zipfile.ZipFile(file) as archive:
        [record] = [r for r in archive.infolist() if r.filename.endswith("data.pkl")]
        size = record.file_size
    whole = file.read_bytes()
    start = whole.index(b"\x80\x02")
    for number in range(0, size, max(1, size // 100)):
        place = start + number
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        try:
            convert(source, tmp_path / "model")
        except (ValueError, MemoryError):
            continue
        finally:
            shutil.rmtree(tmp_path / "model", ignore_errors=True)


def test_devices_and_links(source: Path, tmp_path: Path) -> None:
    base = source / "iter_0000123"
    file = base / "mp_rank_01" / RANK
    file.rename(tmp_path / "elsewhere.pt")
    file.symlink_to(tmp_path / "elsewhere.pt")
    convert(source, tmp_path / "model")  # of a store of large files, say
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="not a regular file"):
        convert(source, tmp_path / "other")


# Where it goes.


def test_the_output_does_not_lie_in_the_input(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    for out in (source, source / "model", source / "iter_0000123/x/y", tmp_path / "link/model"):
        with pytest.raises(ValueError, match="the output lies in the input"):
            convert(source, out)
    assert not (source / "model").exists()


def test_what_is_there_stays(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    convert(source, target)
    with pytest.raises(FileExistsError, match="is there already"):
        convert(source, target)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already"):
        convert(source, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_that_ended_early_goes_on(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "whole", max_shard_bytes=50_000)

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    target = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        convert(source, target, max_shard_bytes=50_000, progress=stop)
    assert not target.exists()
    summary = convert(source, target, max_shard_bytes=50_000)
    assert summary.kept_files >= 2
    read = [
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (target, tmp_path / "whole")
    ]
    assert read[0] == read[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "training", "whole"]


def test_a_run_of_another_recipe_is_not_gone_on_with(source: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "model", max_shard_bytes=50_000, progress=stop)
    assert convert(source, tmp_path / "model", dtype="float16").kept_files == 0
    assert load(tmp_path / "model").dtype == torch.float16


def test_a_kill_before_the_last_name(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "model")
    convert(source, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "training"]


def test_a_source_that_changes(source: Path, tmp_path: Path) -> None:
    file = source / "iter_0000123/mp_rank_01" / RANK

    def touch(done: int, total: int) -> None:
        os.utime(file, ns=(1, 1))

    with pytest.raises(ValueError, match="changed while it was read"):
        convert(source, tmp_path / "model", progress=touch)
    assert [path.name for path in tmp_path.iterdir()] == ["training"]


# Memory.


def test_files_larger_than_memory_are_mapped_otherwise(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch maps pages that could be written without the file; of these there is a limit."""
    given, shares = torch.UntypedStorage.from_file, []

    def limited(name: str, shared: bool, size: int) -> Any:
        shares.append(shared)
        if not shared:
            raise RuntimeError("unable to mmap 9 bytes from file <a>: Cannot allocate memory (12)")
        return given(name, shared, size)

    before = {path: path.read_bytes() for path in source.rglob("*.pt")}
    monkeypatch.setattr(torch.UntypedStorage, "from_file", limited)
    convert(source, tmp_path / "model")
    assert shares == [False, True] * 2
    assert {path: path.read_bytes() for path in source.rglob("*.pt")} == before
    assert torch.serialization.get_default_mmap_options() == mmap.MAP_PRIVATE


MEASURED = """
import sys, threading, time
from lmcore.openba import convert
import lmcore.openba.conversion

def read():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024

convert(sys.argv[1], sys.argv[2])
peak, before, done = 0, read(), threading.Event()
def watch():
    global peak
    while not done.is_set():
        peak = max(peak, read())
        time.sleep(0.001)
thread = threading.Thread(target=watch)
thread.start()
convert(sys.argv[3], sys.argv[4], dtype=sys.argv[5] or None)
done.set(), thread.join()
print(peak - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of memory")
@pytest.mark.parametrize("dtype", ["", "bfloat16"])
def test_memory_does_not_grow_with_the_model(source: Path, tmp_path: Path, dtype: str) -> None:
    """A model of 200 MB, within a tenth of it."""
    sizes = {"hidden_size": 512, "num_heads": 8, "kv_channels": 64, "ffn_hidden_size": 2048}
    large = make_trained(**sizes, vocab_size=20_000, encoder_layers=2, decoder_layers=4)
    write_checkpoint(tmp_path / "large", large, 2)
    size = sum(p.numel() * 4 for p in large.parameters())
    assert size > 1.9e8
    del large
    arguments = source, tmp_path / "a", tmp_path / "large", tmp_path / "b", dtype
    process = warm.start(MEASURED, *arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert int(output) < size / 10
