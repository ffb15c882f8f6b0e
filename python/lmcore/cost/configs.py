"""Shapes of models from their `config.json`: OpenBA, T5, Llama and their like, GPT-2 and BERT.

A configuration says what the class of its model takes for granted otherwise; here those values
stand for each kind. What a file does not say and no default answers is an error.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmcore._json import parse_json, read_json
from lmcore.cost.shapes import MOST, Shape

_MOST_BYTES = 1 << 24  # of a configuration, or of the header of a file of weights
_MISSING = object()


def read_shape(
    path: str | os.PathLike[str], *, swiglu_rule: bool | None = None, tied: bool | None = None
) -> Shape:
    """Returns the shape that a configuration describes.

    Read are the kinds `openba`, released or ours, `t5`, `mt5`, `umt5`, `llama`, `mistral`,
    `qwen2`, `qwen3`, `gpt2` and `bert`, which is the encoder without what stands on it. OpenBA's
    files do not say whether the inner layers are two thirds of `ffn_hidden_size`, rounded up to a
    multiple of 256 (V1), or all of it (V2): weights beside the configuration tell, and without any
    it is the first.

    Args:
        path: a configuration, or the folder of a model, or of a run, whose best model it is.
        swiglu_rule: says which of the two it is.
        tied: whether the output layer's weights are the embedding, in place of what the file says.

    Raises:
        OSError: the file cannot be read.
        ValueError: it describes no such model; the text names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "config.json")
        ...     _ = file.write_text('{"model_type": "openba", "num_layers": 2, "num_heads": 4}')
        ...     shape = read_shape(folder)
        >>> shape.encoder_layers, shape.decoder_layers, shape.heads_size, shape.inner_size
        (2, 2, 256, 1536)
    """
    file = find_config(path)
    if file.exists() and not file.is_file():
        raise ValueError(f"{file}: not a configuration: expected a file, got a device or a pipe")
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{file}: not a configuration: it has more than {_MOST_BYTES} bytes")
    content = read_json(file, "a configuration")
    if not isinstance(content, dict):
        raise ValueError(f"{file}: not a configuration: expected an object, got {content!r:.60}")
    try:
        changes = {} if tied is None else {"tie_word_embeddings": tied}
        if swiglu_rule is not None:
            changes["swiglu_rule"] = swiglu_rule
        return make_shape({**content, **changes}, folder=file.parent)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None


def find_config(path: str | os.PathLike[str]) -> Path:
    """Returns the configuration of a model.

    Args:
        path: a configuration, or the folder of a model, or of a run, whose best model it is.

    Example:
        >>> find_config("model.json").name
        'model.json'
    """
    file = Path(path)
    if file.is_dir():
        best = file / "best" / "config.json"
        file = file / "config.json"
        if best.is_file() and not file.exists():
            file = best
    return file


def make_shape(config: Mapping[str, Any], *, folder: Path | None = None) -> Shape:
    """Returns the shape that the fields of a configuration describe.

    Args:
        config: as `config.json` holds it.
        folder: where weights may lie that tell what the fields do not.

    Raises:
        TypeError: a field has another type.
        ValueError: the kind of model is not known, a field is missing or out of its range.

    Example:
        >>> make_shape({"model_type": "t5", "d_ff": 3072, "d_model": 768}).gated
        False
    """
    kind = config.get("model_type")
    make = _KINDS.get(kind) if isinstance(kind, str) else None
    if make is None:
        known = ", ".join(_KINDS)
        raise ValueError(f"model_type must be one of {known}: got {kind!r:.60}")
    return make(_Fields(config), folder)


def apply_swiglu_rule(size: int) -> int:
    """Returns two thirds of a size, rounded up to a multiple of 256.

    Args:
        size: `ffn_hidden_size` of OpenBA V1.

    Example:
        >>> apply_swiglu_rule(16384)
        11008
    """
    return -(-(2 * size // 3) // 256) * 256


class _Fields:
    """The fields of a configuration, taken by any of their names."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def take(self, *names: str, default: Any = _MISSING) -> Any:
        for name in names:
            value = self._config.get(name)
            if value is not None:
                return value
        if default is _MISSING:
            raise ValueError(f"{names[0]} must be given")
        return default

    def size(self, *names: str, default: Any = _MISSING) -> int:
        value = self.take(*names, default=default)
        name = next((name for name in names if self._config.get(name) is not None), names[0])
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number: got {value!r:.60}")
        if not 1 <= value <= MOST:
            raise ValueError(f"{name} must be from 1 to {MOST}: got {value}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.take(name, default=default)
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be true or false: got {value!r:.60}")
        return value


def _make_openba(fields: _Fields, folder: Path | None) -> Shape:
    encoders = fields.size("encoder_layers", "num_layers", default=12)
    given = fields.size("ffn_hidden_size", default=2048)
    rule = fields.take("swiglu_rule", default=None)
    if rule is None:
        found = None if folder is None else _find_columns(folder)
        rule = not (found == given != apply_swiglu_rule(given))
    elif not isinstance(rule, bool):
        raise TypeError(f"swiglu_rule must be true or false: got {rule!r:.60}")
    qkv_bias = fields.flag("add_qkv_bias", False)
    heads = fields.size("num_heads", default=8)
    return Shape(
        encoder_layers=encoders,
        decoder_layers=fields.size("decoder_layers", "num_decoder_layers", default=encoders),
        hidden_size=fields.size("hidden_size", default=512),
        heads=heads,
        groups=heads,
        head_size=fields.size("kv_channels", default=64),
        inner_size=apply_swiglu_rule(given) if rule else given,
        vocabulary_size=fields.size("vocab_size", default=32128),
        fused_qkv=True,
        qkv_bias=qkv_bias,
        output_bias=qkv_bias,
        inner_bias=fields.flag("add_ffn_bias", False),
        norm_bias=True,
        head_bias=fields.flag("add_lm_head_bias", False),
        tied=fields.flag("tie_word_embeddings", True),
    )


def _make_t5(fields: _Fields, folder: Path | None) -> Shape:
    encoders = fields.size("num_layers", default=6)
    decoders = fields.size("num_decoder_layers", default=encoders)
    heads = fields.size("num_heads", default=8)
    kind = fields.take("model_type")
    form = fields.take("feed_forward_proj", default="relu" if kind == "t5" else "gated-gelu")
    if not isinstance(form, str):
        raise TypeError(f"feed_forward_proj must be a text: got {form!r:.60}")
    return Shape(
        encoder_layers=encoders,
        decoder_layers=decoders,
        hidden_size=fields.size("d_model", "hidden_size", default=512),
        heads=heads,
        groups=heads,
        head_size=fields.size("d_kv", default=64),
        inner_size=fields.size("d_ff", default=2048 if kind == "t5" else 1024),
        vocabulary_size=fields.size("vocab_size", default=32128 if kind == "t5" else 250112),
        gated=form.startswith("gated-"),
        tied=fields.flag("tie_word_embeddings", True),
        bias_buckets=fields.size("relative_attention_num_buckets", default=32),
        bias_of_each_layer=kind == "umt5",  # the others share the first layer's
    )


def _make_llama(fields: _Fields, folder: Path | None) -> Shape:
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    kind = fields.take("model_type")
    needs = fields.take("head_dim", default=None) is None and kind != "qwen3"
    if hidden % heads and needs:
        raise ValueError(f"num_attention_heads must divide hidden_size: got {heads} and {hidden}")
    is_qwen = kind == "qwen2"  # which does not say that it has these biases
    bias = fields.flag("attention_bias", False)
    return Shape(
        encoder_layers=0,
        decoder_layers=fields.size("num_hidden_layers"),
        hidden_size=hidden,
        heads=heads,
        groups=fields.size("num_key_value_heads", default=heads if kind == "llama" else _MISSING),
        head_size=fields.size("head_dim", default=128 if kind == "qwen3" else hidden // heads),
        inner_size=fields.size("intermediate_size"),
        vocabulary_size=fields.size("vocab_size"),
        qkv_bias=bias or is_qwen,
        output_bias=bias,
        inner_bias=fields.flag("mlp_bias", False),
        head_norm=kind == "qwen3",
        tied=fields.flag("tie_word_embeddings", False),
    )


def _make_gpt2(fields: _Fields, folder: Path | None) -> Shape:
    hidden, heads = fields.size("n_embd", default=768), fields.size("n_head", default=12)
    _refuse_flag(fields, "add_cross_attention")
    return Shape(
        encoder_layers=0,
        decoder_layers=fields.size("n_layer", default=12),
        position_rows=fields.size("n_positions", default=1024),
        inner_size=fields.size("n_inner", default=4 * hidden),
        vocabulary_size=fields.size("vocab_size", default=50257),
        tied=fields.flag("tie_word_embeddings", True),
        **_divide(hidden, heads, "n_embd", "n_head"),
    )


def _make_bert(fields: _Fields, folder: Path | None) -> Shape:
    hidden = fields.size("hidden_size", default=768)
    heads = fields.size("num_attention_heads", default=12)
    _refuse_flag(fields, "is_decoder")
    positions = fields.size("max_position_embeddings", default=512)
    return Shape(
        encoder_layers=fields.size("num_hidden_layers", default=12),
        decoder_layers=0,
        # Kinds of tokens have rows like positions, and the norm of the embeddings is the one that
        # other encoders end with.
        position_rows=positions + fields.size("type_vocab_size", default=2),
        inner_size=fields.size("intermediate_size", default=3072),
        vocabulary_size=fields.size("vocab_size", default=30522),
        tied=fields.flag("tie_word_embeddings", True),
        **_divide(hidden, heads, "hidden_size", "num_attention_heads"),
    )


def _divide(hidden: int, heads: int, name: str, divisor: str) -> dict[str, Any]:
    """The sizes of a model whose heads divide the hidden size, with biases in all maps."""
    if hidden % heads:
        raise ValueError(f"{divisor} must divide {name}: got {heads} and {hidden}")
    biases = ("fused_qkv", "qkv_bias", "output_bias", "inner_bias", "norm_bias")
    return {
        "hidden_size": hidden, "heads": heads, "groups": heads, "head_size": hidden // heads,
        "gated": False, **dict.fromkeys(biases, True), "fused_qkv": name == "n_embd",
    }  # fmt: skip


def _refuse_flag(fields: _Fields, name: str) -> None:
    if fields.flag(name, False):
        raise ValueError(f"{name} must be false: a decoder of this kind is not known here")


_KINDS: dict[str, Callable[[_Fields, Path | None], Shape]] = {
    "openba": _make_openba,
    "t5": _make_t5,
    "mt5": _make_t5,
    "umt5": _make_t5,
    "llama": _make_llama,
    "mistral": _make_llama,
    "qwen2": _make_llama,
    "qwen3": _make_llama,
    "gpt2": _make_gpt2,
    "bert": _make_bert,
}


def _find_columns(folder: Path) -> int | None:
    """The inner size that weights in a folder have; None where they cannot be found."""
    names = [folder / "model.safetensors", *sorted(folder.glob("model-*-of-*.safetensors"))]
    for file in names:
        shape = _read_header(file).get("decoder.block.0.mlp.fc_out.weight", {}).get("shape")
        if isinstance(shape, list) and len(shape) == 2 and isinstance(shape[1], int):
            return shape[1]
    return None


def _read_header(file: Path) -> dict[str, Any]:
    """Names, types and shapes of a file of safetensors; nothing of what is none."""
    if not file.is_file():
        return {}
    with open(file, "rb") as source:
        begin = source.read(8)
        size = struct.unpack("<Q", begin)[0] if len(begin) == 8 else 0
        if not 0 < size <= _MOST_BYTES:
            return {}
        try:
            header = parse_json(source.read(size).decode())
        except ValueError:
            return {}
    return (
        {name: value for name, value in header.items() if isinstance(value, dict)}
        if (isinstance(header, dict))
        else {}
    )
