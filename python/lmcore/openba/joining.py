"""Tensors of a model of OpenBA, put together from those of Megatron's ranks.

Column-parallel tensors are divided along their rows, row-parallel ones along their columns; biases
behind row-parallel ones and normalisations are the same on all ranks. A head's query, key and value
lie side by side, so that a rank's rows are whole heads, in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmcore._safetensors import WIDTHS
from lmcore._shards import ShardFile
from lmcore._stored import TORCH_NAMES, StoredTensor
from lmcore.cost.configs import apply_swiglu_rule
from lmcore.openba.configuration_openba import OpenBAConfig
from lmcore.openba.megatron import Rank

#: Where the arguments of a training stand in a configuration.
FIELDS = {
    "vocab_size": "padded_vocab_size",
    "hidden_size": "hidden_size",
    "kv_channels": "kv_channels",
    "num_heads": "num_attention_heads",
    "ffn_hidden_size": "ffn_hidden_size",
    "encoder_layers": "num_layers",
    "decoder_layers": "decoder_num_layers",
    "max_seq_length": "encoder_seq_length",
    "decoder_max_seq_length": "decoder_seq_length",
}
_RATES = {
    "hidden_dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "layer_norm_eps": "layernorm_epsilon",
}
_DTYPES = ("F16", "BF16", "F32")
# What stays in a core's cache between the reading and the writing of it.
_BLOCK_BYTES = 1 << 19
_EMBEDDING = "language_model.embedding.word_embeddings.weight"
_HEAD_BIAS = "lm_head.bias"
# Angles of the positions, which are computed here.
_BUFFER = re.compile(
    r"language_model\.(encoder|decoder)\.layers\.\d+\.self_attention\.rotary_embed\.inv_freq"
)
_LISTED = 5


@dataclass(kw_only=True, slots=True, frozen=True)
class Source:
    """Where the parts of a tensor lie."""

    names: tuple[str, ...]
    """Megatron's, whose parts stand one behind the other."""
    axis: int | None
    """That is divided among ranks; None where all have the same."""
    shape: tuple[int, ...]
    """Of one of the names, put together."""


@dataclass(kw_only=True, slots=True, frozen=True)
class JoinedTensor:
    """A tensor of a model, as parts that lie in files."""

    name: str
    """In released folders."""
    dtype: str
    """Of the parts, as safetensors calls it: `F16`."""
    shape: tuple[int, ...]
    axis: int
    """Along which the parts stand one behind the other."""
    parts: list[StoredTensor]


def find_config(rank: Rank, ranks: int) -> OpenBAConfig:
    """Returns the configuration of the model that a checkpoint holds.

    Args:
        rank: the first one.
        ranks: how many there are.

    Raises:
        ValueError: the arguments lack a size, or say none of a model.

    Example:
        >>> from pathlib import Path
        >>> find_config(Rank(file=Path("a"), arguments={}, iteration=1, tensors={}), 1)
        Traceback (most recent call last):
        ValueError: a: args must have padded_vocab_size, a whole number: got None
    """
    found: dict[str, Any] = {}
    for name, theirs in FIELDS.items():
        value = rank.arguments.get(theirs)
        if name == "decoder_layers" and value is None:
            value = rank.arguments.get(FIELDS["encoder_layers"])
        if type(value) is not int:
            raise ValueError(
                f"{rank.file}: args must have {theirs}, a whole number: got {value!r:.40}"
            )
        found[name] = value
    for name, theirs in _RATES.items():
        if (value := rank.arguments.get(theirs)) is not None:
            if type(value) not in (int, float):
                raise ValueError(f"{rank.file}: {theirs} must be a number: got {value!r:.40}")
            found[name] = value
    layer = "language_model.encoder.layers.0"
    gate = rank.tensors.get(f"{layer}.mlp.w1.weight")
    if gate is None or len(gate.shape) != 2:
        raise ValueError(f"{rank.file}: lacks {layer}.mlp.w1.weight")
    inner, size = gate.shape[0] * ranks, found["ffn_hidden_size"]
    rule = {size: False, apply_swiglu_rule(size): True}.get(inner)
    if rule is None:
        raise ValueError(
            f"{rank.file}: ffn_hidden_size {size} leaves inner layers of "
            f"{apply_swiglu_rule(size)} or {size}: got {inner}"
        )
    biases = {
        "add_qkv_bias": f"{layer}.self_attention.query_key_value.bias",
        "add_ffn_bias": f"{layer}.mlp.w1.bias",
        "add_lm_head_bias": _HEAD_BIAS,
    }
    found |= {name: theirs in rank.tensors for name, theirs in biases.items()}
    found |= {"architectures": ["OpenBAForConditionalGeneration"], "tie_word_embeddings": False}
    try:
        config = OpenBAConfig(**found, swiglu_rule=rule)
    except Exception as error:  # of the library that checks fields
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise ValueError(f"{rank.file}: args are those of no model: {reason:.200}") from None
    for theirs, value in (
        ("num_attention_heads", config.num_heads), ("padded_vocab_size", config.vocab_size),
    ):  # fmt: skip
        if value % ranks:
            raise ValueError(
                f"{rank.file}: {theirs} must be a multiple of the {ranks} ranks: got {value}"
            )
    return config


def find_sources(config: OpenBAConfig) -> dict[str, Source]:
    """Returns where the tensors of a model come from, by their names in released folders.

    Args:
        config: of the model.

    Source: specification of OpenBA, section 2.10, and the authors' `convert_megatron_to_hf_ckp.py`.

    Example:
        >>> find_sources(OpenBAConfig())["encoder.block.0.mlp.fc_in.weight"].shape
        (1536, 512)
    """
    size, heads, inner = config.hidden_size, config.heads_size, config.inner_size
    vocabulary = config.vocab_size
    table = Source(names=(_EMBEDDING,), axis=0, shape=(vocabulary, size))
    found = {"shared_embedding.weight": table}

    def add(ours: str, theirs: Sequence[str], axis: int | None, shape: tuple[int, ...]) -> None:
        names = tuple(f"language_model.{name}" for name in theirs)
        found[ours] = Source(names=names, axis=axis, shape=shape)

    def add_norm(ours: str, theirs: str) -> None:
        for kind in ("weight", "bias"):
            add(f"{ours}.{kind}", [f"{theirs}.{kind}"], None, (size,))

    def add_linear(
        ours: str, theirs: Sequence[str], rows: int, columns: int, *, bias: bool, by_rows: bool
    ) -> None:
        weights = [f"{name}.weight" for name in theirs]
        add(f"{ours}.weight", weights, 0 if by_rows else 1, (rows, columns))
        if bias:
            biases = [f"{name}.bias" for name in theirs]
            add(f"{ours}.bias", biases, 0 if by_rows else None, (rows,))

    for stack, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        is_decoder = stack == "decoder"
        for number in range(layers):
            ours, theirs = f"{stack}.block.{number}", f"{stack}.layers.{number}"
            qkv_bias, ffn_bias = config.add_qkv_bias, config.add_ffn_bias
            add_norm(f"{ours}.input_layernorm", f"{theirs}.input_layernorm")
            own = f"{theirs}.self_attention"
            add_linear(
                f"{ours}.self_attn.qkv", [f"{own}.query_key_value"], 3 * heads, size,
                bias=qkv_bias, by_rows=True,
            )  # fmt: skip
            add_linear(
                f"{ours}.self_attn.o", [f"{own}.dense"], size, heads, bias=qkv_bias, by_rows=False
            )
            add_norm(f"{ours}.post_attn_layernorm", f"{theirs}.post_attention_layernorm")
            if is_decoder:
                cross = f"{theirs}.inter_attention"
                for name, old, rows in (("q", "query", heads), ("kv", "key_value", 2 * heads)):
                    add_linear(
                        f"{ours}.inter_attn.{name}", [f"{cross}.{old}"], rows, size,
                        bias=qkv_bias, by_rows=True,
                    )  # fmt: skip
                add_linear(
                    f"{ours}.inter_attn.o", [f"{cross}.dense"], size, heads,
                    bias=qkv_bias, by_rows=False,
                )  # fmt: skip
                add_norm(
                    f"{ours}.post_inter_attn_layernorm", f"{theirs}.post_inter_attention_layernorm"
                )
            gates = [f"{theirs}.mlp.w1", f"{theirs}.mlp.w3"]
            add_linear(f"{ours}.mlp.fc_in", gates, inner, size, bias=ffn_bias, by_rows=True)
            add_linear(
                f"{ours}.mlp.fc_out", [f"{theirs}.mlp.w2"], size, inner,
                bias=ffn_bias, by_rows=False,
            )  # fmt: skip
        add_norm(f"{stack}.final_layernorm", f"{stack}.final_layernorm")
    found["lm_head.weight"] = table
    if config.add_lm_head_bias:
        found["lm_head.bias"] = Source(names=(_HEAD_BIAS,), axis=0, shape=(vocabulary,))
    return found


def join_ranks(ranks: Sequence[Rank], config: OpenBAConfig) -> list[JoinedTensor]:
    """Returns the tensors of a model, after checks that each rank holds its part of all of them.

    Args:
        ranks: of one checkpoint, in order.
        config: of its model.

    Raises:
        ValueError: a tensor lacks, is not known, has another shape or type than expected, or
            differs between ranks where it must not; the text names it and the file.

    Example:
        >>> from pathlib import Path
        >>> rank = Rank(file=Path("a"), arguments={}, iteration=1, tensors={})
        >>> join_ranks([rank], OpenBAConfig())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: a: lacks language_model.embedding.word_embeddings.weight, ...
    """
    sources = find_sources(config)
    known = {name for source in sources.values() for name in source.names}
    for rank in ranks:
        unknown = [
            name for name in rank.tensors if name not in known and not _BUFFER.fullmatch(name)
        ]
        missing = [
            name
            for name in dict.fromkeys(n for source in sources.values() for n in source.names)
            if name not in rank.tensors
        ]
        if missing:
            raise ValueError(f"{rank.file}: lacks {_list(missing)}")
        if unknown:
            raise ValueError(f"{rank.file}: the model has no {_list(unknown)}")
    joined = [_join(name, source, ranks) for name, source in sources.items()]
    differing = [
        source.names[0] for source in sources.values()
        if source.axis is None and not _are_equal(source.names[0], ranks)
    ]  # fmt: skip
    if differing:
        raise ValueError(
            f"{ranks[0].file.parent.parent}: must be the same on all ranks, and differs: "
            f"{_list(differing)}"
        )
    return joined


def _join(name: str, source: Source, ranks: Sequence[Rank]) -> JoinedTensor:
    expected = list(source.shape)
    if source.axis is not None:
        expected[source.axis] //= len(ranks)
    dtype = ranks[0].tensors[source.names[0]].dtype
    for theirs in source.names:
        for rank in ranks:
            tensor = rank.tensors[theirs]
            if list(tensor.shape) != expected:
                raise ValueError(
                    f"{rank.file}: {theirs} has the shape {list(tensor.shape)} where {expected} is "
                    "expected"
                )
            if tensor.dtype not in _DTYPES or tensor.dtype != dtype:
                raise ValueError(
                    f"{rank.file}: {theirs} has the type {tensor.dtype} where "
                    f"{dtype if dtype in _DTYPES else ' or '.join(_DTYPES)} is expected"
                )
    used = ranks if source.axis is not None else ranks[:1]
    shape = (source.shape[0] * len(source.names), *source.shape[1:])
    return JoinedTensor(
        name=name, dtype=dtype, shape=shape, axis=source.axis or 0,
        parts=[rank.tensors[theirs] for theirs in source.names for rank in used],
    )  # fmt: skip


def _are_equal(name: str, ranks: Sequence[Rank]) -> bool:
    """Bit for bit: weights that are no numbers equal themselves."""
    first, *others = (_as_integers(rank.tensors[name]) for rank in ranks)
    return all(np.array_equal(first, other) for other in others)


def _list(names: Sequence[str]) -> str:
    shown = [f"{name:.100}" for name in names[:_LISTED]]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(shown)}{more}"


def write_joined(file: ShardFile, tensor: JoinedTensor, dtype: str) -> None:
    r"""Writes a tensor that is put together, in blocks of half a megabyte.

    Args:
        file: that it is written into.
        tensor: the tensor.
        dtype: to write it in, as safetensors calls it.

    Raises:
        OSError: the disk is full, or the file cannot be written.
        ValueError: a finite number is infinite in that type.

    Example:
        >>> from pathlib import Path
        >>> parts = [
        ...     StoredTensor(
        ...         file=Path("a"),
        ...         dtype="F16",
        ...         shape=(2, 1),
        ...         elements=np.array([[n], [n + 1]], np.float16).view("V2"),
        ...         offset=None,
        ...     )
        ...     for n in (0, 2)
        ... ]
        >>> tensor = JoinedTensor(name="o", dtype="F16", shape=(2, 2), axis=1, parts=parts)
        >>> with open("/dev/null", "wb") as null:
        ...     write_joined(ShardFile(null.fileno(), print), tensor, "F16")
        8
    """
    for block in _join_blocks(tensor):
        if dtype != tensor.dtype:
            block = _convert(block, tensor, dtype)
        file.write(block.reshape(-1).view(np.uint8).data)


def _as_integers(tensor: StoredTensor) -> NDArray[Any]:
    """The same memory as whole numbers, which numpy copies faster than bytes of no type."""
    return tensor.elements.view(f"u{WIDTHS[tensor.dtype]}")


def _join_blocks(tensor: JoinedTensor) -> Iterator[NDArray[Any]]:
    parts = [_as_integers(part) for part in tensor.parts]
    if tensor.axis == 0:
        for part in parts:
            rows = part.reshape(-1) if part.flags.c_contiguous else part
            for start, stop in _divide(rows):
                yield np.ascontiguousarray(rows[start:stop])
        return
    for start, stop in _divide(parts[0], len(parts)):
        yield np.concatenate([part[start:stop] for part in parts], axis=1)


def _divide(rows: NDArray[Any], parts: int = 1) -> Iterator[tuple[int, int]]:
    count = len(rows)
    step = max(1, _BLOCK_BYTES // max(1, parts * rows.nbytes // max(1, count)))
    for start in range(0, count, step):
        yield start, min(start + step, count)


def _convert(block: NDArray[Any], tensor: JoinedTensor, dtype: str) -> NDArray[Any]:
    signed = torch.from_numpy(block.view(f"i{block.itemsize}").copy())
    values = signed.view(getattr(torch, TORCH_NAMES[tensor.dtype]))
    converted = values.to(getattr(torch, TORCH_NAMES[dtype]))
    if bool((converted.isinf() & values.isfinite()).any()):
        raise ValueError(f"{tensor.name}: a weight is too large for {TORCH_NAMES[dtype]}")
    return converted.view(torch.uint8).numpy()
