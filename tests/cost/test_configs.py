"""Shapes from files: names and defaults, weights that tell, and files that are something else."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lmcore.cost import Shape, read_shape
from lmcore.cost.configs import make_shape
from tiny_openba import make_model

OPENBA = {"model_type": "openba", "num_layers": 2, "ffn_hidden_size": 600}


def write(folder: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "config.json").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_or_its_file(tmp_path: Path) -> None:
    shape = read_shape(write(tmp_path, OPENBA))
    assert shape == read_shape(str(tmp_path / "config.json"))
    assert (shape.encoder_layers, shape.decoder_layers, shape.inner_size) == (2, 2, 512)
    assert read_shape(write(tmp_path, {**OPENBA, "num_decoder_layers": None})) == shape
    deeper = read_shape(write(tmp_path, {**OPENBA, "num_decoder_layers": 5}))
    assert (deeper.encoder_layers, deeper.decoder_layers) == (2, 5)
    assert (shape.tied, read_shape(tmp_path, tied=False).tied) == (True, False)


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    shape = read_shape(write(tmp_path / "best", OPENBA))
    assert read_shape(tmp_path) == shape
    write(tmp_path, {**OPENBA, "num_layers": 3})
    assert read_shape(tmp_path).encoder_layers == 3


def test_golden_folders(golden_dir: Path) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM

    import lmcore.openba  # noqa: F401
    from lmcore.cost import count_parameters

    for folder in sorted((golden_dir / "openba").iterdir()):
        config = json.loads((folder / "config.json").read_text())
        assert "swiglu_rule" not in config
        model: torch.nn.Module = AutoModelForSeq2SeqLM.from_pretrained(folder)
        expected = sum(parameter.numel() for parameter in model.parameters())
        assert count_parameters(read_shape(folder)).total == expected


@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize("rule", [True, False])
def test_weights_tell_the_rule_of_the_inner_layers(
    tmp_path: Path, rule: bool, original: bool
) -> None:
    model = make_model(ffn_hidden_size=600, swiglu_rule=rule)
    model.save_pretrained(tmp_path, save_original_format=original, max_shard_size="100KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("swiglu_rule") is rule
    expected = make_shape({**config, "swiglu_rule": rule})
    write(tmp_path, config)
    assert read_shape(tmp_path) == expected
    assert expected.inner_size == (512 if rule else 600)
    for other in (True, False):  # what is asked for counts
        found = read_shape(tmp_path, swiglu_rule=other)
        assert found == make_shape({**config, "swiglu_rule": other})
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    assert read_shape(tmp_path).inner_size == 512


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 8, b"\x08" + b"\0" * 7, b"\x02" + b"\0" * 7 + b"[]", b"\xff" * 7 + b"\0{}",
     b"\x02" + b"\0" * 7 + b"\xff\xff"],
)  # fmt: skip
def test_broken_weights_tell_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert read_shape(write(tmp_path, OPENBA)).inner_size == 512


@pytest.mark.parametrize(
    "entry",
    [[], "x", {"shape": 3}, {"shape": [1]}, {"shape": [1, "x"]}, {"shape": [1, 10**30]}, {}],
)
def test_shapes_that_tell_nothing(tmp_path: Path, entry: Any) -> None:
    header = json.dumps({"decoder.block.0.mlp.fc_out.weight": entry}).encode()
    begin = len(header).to_bytes(8, "little")
    (tmp_path / "model.safetensors").write_bytes(begin + header)
    assert read_shape(write(tmp_path, OPENBA)).inner_size == 512


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a configuration: "),
        ("[" * 200_000, "nested too deeply"),
        ("[1]", "expected an object, got [1]"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ("{}", "model_type must be one of openba, t5, "),
        ({"model_type": ["openba"]}, "model_type must be one of openba, t5, "),
        ({"model_type": "vit"}, "got 'vit'"),
        ({**OPENBA, "num_layers": 0}, "num_layers must be from 1 to 2147483647: got 0"),
        ({**OPENBA, "num_layers": 10**30}, "num_layers must be from 1 to 2147483647: got 1000"),
        ({**OPENBA, "num_heads": 2.5}, "num_heads must be a whole number: got 2.5"),
        ({**OPENBA, "num_heads": True}, "num_heads must be a whole number: got True"),
        ({**OPENBA, "hidden_size": "x" * 999}, "hidden_size must be a whole number: got 'xxx"),
        ({**OPENBA, "add_qkv_bias": 1}, "add_qkv_bias must be true or false: got 1"),
        ({**OPENBA, "swiglu_rule": "no"}, "swiglu_rule must be true or false: got 'no'"),
        ({"model_type": "t5", "feed_forward_proj": 3}, "feed_forward_proj must be a text: got 3"),
        ({"model_type": "llama"}, "hidden_size must be given"),
        (
            {"model_type": "llama", "hidden_size": 10, "num_attention_heads": 3},
            "num_attention_heads must divide hidden_size: got 3 and 10",
        ),
        (
            {
                "model_type": "llama", "hidden_size": 12, "num_attention_heads": 6,
                "num_key_value_heads": 4, "num_hidden_layers": 1, "intermediate_size": 1,
                "vocab_size": 1,
            },
            "groups must divide heads: got 4 and 6",
        ),
    ],
)  # fmt: skip
def test_files_that_are_something_else(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{1,700}$") as caught:
        read_shape(write(tmp_path, content))
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert message in str(caught.value)


def test_places_where_no_file_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_shape(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_shape(tmp_path / "none.json")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="expected a file, got a device or a pipe"):
            read_shape(path)
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="it has more than 16777216 bytes"):
        read_shape(tmp_path / "large")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"hidden_size": 0}, ValueError, "hidden_size must be from 1 to 2147483647: got 0"),
        ({"encoder_layers": -1}, ValueError, "encoder_layers must be from 0 to"),
        ({"heads": True}, TypeError, "heads must be a whole number: got True"),
        ({"tied": 1}, TypeError, "tied must be true or false: got 1"),
        ({"encoder_layers": 0, "decoder_layers": 0}, ValueError, "must not both be 0"),
        ({"groups": 3}, ValueError, "groups must divide heads: got 3 and 4"),
    ],
)
def test_shapes_that_cannot_be(
    changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    sizes: dict[str, Any] = {
        "encoder_layers": 1, "decoder_layers": 1, "hidden_size": 8, "heads": 4, "groups": 2,
        "head_size": 3, "inner_size": 5, "vocabulary_size": 11,
    }  # fmt: skip
    with pytest.raises(kind, match=message):
        Shape(**{**sizes, **changes})
