"""Models that training starts from, made or loaded, and what belongs to their tokenizer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lmcore._json import read_json
from lmcore._manifest import find_model
from lmcore.openba.configuration_openba import OpenBAConfig
from lmcore.openba.modeling_openba import OpenBAForConditionalGeneration
from lmcore.openba.recipes import DENOISERS, HALF, ShapeConfig
from lmcore.openba.tokenization_openba import PREFIXES, OpenBATokenizer, load_tokenizer
from lmcore.ops.denoising import Denoiser, SpecialIds, o_ul2, ul2
from lmcore.training.checkpoint import gather_weights, no_bars
from lmcore.training.processes import find_device

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Of weights that are loaded; `auto` is what the files have."""
_EMBEDDING, _HEAD = "encoder.embed_tokens.weight", "lm_head.weight"
# A vocabulary is filled up to a multiple of 128 on each of eight devices at most.
_MOST_FILLING = 1024
_POSITIONS = ("max_seq_length", "decoder_max_seq_length")


def make_model(
    shape: ShapeConfig,
    tokenizer: OpenBATokenizer,
    lengths: tuple[int, int] = (1024, 1024),
    *,
    tied: bool = True,
) -> OpenBAForConditionalGeneration:
    """Returns a model with random weights, by torch's generator.

    Args:
        shape: its sizes.
        tokenizer: whose tokens it knows.
        lengths: positions that encoder and decoder are trained with; at least 1024 are written.
        tied: whether the output layer starts with the embedding's weights.

    Example:
        >>> import tempfile
        >>> from lmcore.openba.recipes import tiny
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     tokenizer = OpenBATokenizer(Path(folder, "spiece.model"))
        >>> make_model(tiny().shape, tokenizer).config.vocab_size % 128
        0
    """
    source, target = (max(1024, length) for length in lengths)
    config = OpenBAConfig(
        vocab_size=tokenizer.padded_size(shape.tensor_parallel),
        hidden_size=shape.hidden_size,
        num_heads=shape.heads,
        kv_channels=shape.kv_channels,
        ffn_hidden_size=shape.ffn_hidden_size,
        swiglu_rule=shape.swiglu_rule,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        max_seq_length=source,
        decoder_max_seq_length=target,
        hidden_dropout=shape.dropout,
        attention_dropout=shape.dropout,
        add_qkv_bias=shape.qkv_bias,
        add_lm_head_bias=shape.head_bias,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        # As in the released files: the values are one, and the tensors two.
        tie_word_embeddings=False,
    )
    model = OpenBAForConditionalGeneration(config)
    if tied:
        model.lm_head.load_state_dict(
            {**model.lm_head.state_dict(), "weight": model.encoder.embed_tokens.weight}
        )
    return model


def load_model(
    name: str | os.PathLike[str], *, dtype: str = "float32"
) -> OpenBAForConditionalGeneration:
    """Returns the model of a folder; nothing is fetched.

    Args:
        name: a folder of `save_pretrained` or a released one, or that of a run, whose best model
            it is.
        dtype: of its weights, one of `DTYPES`.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder does not exist or holds no such model, or has changed since it was
            written; the text names it.

    Example:
        >>> load_model("nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}: got {dtype!r:.60}")
    source = find_model(name)
    if not source.is_dir():  # a name of the hub would be asked for there
        raise ValueError(f"{os.fspath(name)}: no such folder of a model")
    file = source / "config.json"
    if not file.is_file():
        raise ValueError(f"{source}: not a model: there is no config.json in it")
    content = read_json(file, "a configuration")
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind != OpenBAConfig.model_type:
        raise ValueError(f"{file}: expected a model of the kind 'openba', got {kind!r:.60}")
    try:
        with no_bars():
            model = OpenBAForConditionalGeneration.from_pretrained(
                source, dtype=dtype, local_files_only=True
            )
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # a folder that is something else makes a loader fail in any way
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        text = reason if str(source) in reason else f"{source}: not a model: {reason}"
        raise ValueError(text[:500]) from error
    return model  # type: ignore[no-any-return]


def load_pair(
    name: str | os.PathLike[str], *, device: str = "auto", dtype: str = "auto"
) -> tuple[OpenBAForConditionalGeneration, OpenBATokenizer]:
    """Returns the model and the tokenizer of a folder, which fit; nothing is fetched.

    Args:
        name: as for `load_model`.
        device: as for `lmcore.training.processes.find_device`.
        dtype: of its weights, one of `DTYPES`.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no model of OpenBA with its tokenizer, or the device does not
            exist; the text names the folder.

    Example:
        >>> load_pair("nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    place = find_device(device)
    model: Any = load_model(name, dtype=dtype)
    folder = find_model(name)
    tokenizer = load_tokenizer(folder)
    try:
        check_fit(model, tokenizer)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return model.to(place), tokenizer


def find_ids(tokenizer: OpenBATokenizer) -> SpecialIds:
    """Returns the ids that denoised texts are made with.

    Args:
        tokenizer: of the texts.

    Raises:
        ValueError: it has no sentinels, or they do not count down.

    Example:
        >>> import tempfile
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     tokenizer = OpenBATokenizer(Path(folder, "spiece.model"))
        >>> find_ids(tokenizer).sentinel_count
        100
    """
    sentinels = tokenizer.sentinel_ids
    if not sentinels or sentinels != [sentinels[0] - n for n in range(len(sentinels))]:
        raise ValueError("the tokenizer must have sentinels whose ids count down")
    return SpecialIds(
        vocabulary_size=len(tokenizer),
        first_sentinel=sentinels[0],
        sentinel_count=len(sentinels),
        eos=tokenizer.eos_token_id,
        bos=tokenizer.pad_token_id,
        pad=tokenizer.pad_token_id,
    )


def find_denoisers(
    tokenizer: OpenBATokenizer, names: Sequence[str] = DENOISERS, *, prefixes: bool = True
) -> tuple[Denoiser, ...]:
    """Returns denoisers with the prefixes of a tokenizer, all of one weight.

    Args:
        tokenizer: of the texts.
        names: some of `lmcore.openba.recipes.ALL_DENOISERS`; the seven of UL2 by default.
        prefixes: whether the encoder is told the kind of its denoiser.

    Raises:
        ValueError: the tokenizer has no such prefixes.

    Example:
        >>> import tempfile
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     tokenizer = OpenBATokenizer(Path(folder, "spiece.model"))
        >>> len(find_denoisers(tokenizer))
        7
    """
    r, s, x = find_prefixes(tokenizer) if prefixes else (None, None, None)
    known = {one.name: one for one in ul2(r, s, x)}
    known[HALF] = replace(o_ul2(s, x)[0], name=HALF, weight=1.0)
    return tuple(known[name] for name in names)


def find_prefixes(tokenizer: OpenBATokenizer) -> tuple[int, int, int]:
    """Returns the ids of `<R>`, `<S>` and `<X>`.

    Args:
        tokenizer: of the texts.

    Raises:
        ValueError: it has no such prefixes.

    Example:
        >>> import tempfile
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     tokenizer = OpenBATokenizer(Path(folder, "spiece.model"))
        >>> find_prefixes(tokenizer) == tuple(tokenizer.prefix_ids.values())
        True
    """
    ids = tokenizer.prefix_ids
    missing = [name for name in PREFIXES if name not in ids]
    if missing:
        raise ValueError(f"the tokenizer must have the token {missing[0]}, or prefixes be false")
    r, s, x = (ids[name] for name in PREFIXES)
    return r, s, x


def grow_positions(model: OpenBAForConditionalGeneration, lengths: tuple[int, int]) -> None:
    """Returns nothing once a model's configuration says that it is trained at some lengths.

    Rotary positions have no weights: what a model has learnt stays as it is.

    Args:
        model: of any lengths; they do not shrink.
        lengths: positions of encoder and decoder.

    Example:
        >>> sizes = {"vocab_size": 9, "hidden_size": 8, "encoder_layers": 1, "decoder_layers": 2}
        >>> model = OpenBAForConditionalGeneration(OpenBAConfig(**sizes, max_seq_length=16))
        >>> grow_positions(model, (32, 8))
        >>> model.config.max_seq_length, model.config.decoder_max_seq_length
        (32, 256)
    """
    for name, length in zip(_POSITIONS, lengths, strict=True):
        setattr(model.config, name, max(getattr(model.config, name), length))


def check_fit(model: OpenBAForConditionalGeneration, tokenizer: OpenBATokenizer) -> None:
    """Checks that a model and a tokenizer have vocabularies of one size, and one padding and end.

    Args:
        model: whose embedding may be filled up to a multiple of 1024.
        tokenizer: of the texts.

    Raises:
        ValueError: they do not fit.

    Example:
        >>> import tempfile
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     tokenizer = OpenBATokenizer(Path(folder, "spiece.model"))
        >>> from lmcore.openba.recipes import tiny
        >>> check_fit(make_model(tiny().shape, tokenizer), tokenizer)
    """
    rows, known = model.config.vocab_size, len(tokenizer)
    if not known <= rows < known + _MOST_FILLING:
        raise ValueError(
            f"the tokenizer and the model do not fit: the tokenizer has {known} tokens, and the "
            f"model has {rows} embeddings"
        )
    for name, wanted in (
        ("pad_token_id", tokenizer.pad_token_id),
        ("eos_token_id", tokenizer.eos_token_id),
        ("decoder_start_token_id", tokenizer.pad_token_id),
    ):
        found = getattr(model.config, name)
        if wanted not in (found if isinstance(found, list) else [found]):
            raise ValueError(
                f"the tokenizer and the model do not fit: {name} is {wanted} of the tokenizer, and "
                f"{found} of the model"
            )


def tie_head(model: OpenBAForConditionalGeneration) -> None:
    """Returns nothing once output layer and embedding are one matrix, and neither is scaled.

    Source: OpenBA's training with Megatron, whose converter writes the one matrix twice.

    Args:
        model: whose two matrices are equal.

    Raises:
        ValueError: they differ.

    Example:
        >>> sizes = {"vocab_size": 9, "hidden_size": 8, "encoder_layers": 1, "decoder_layers": 2}
        >>> model = OpenBAForConditionalGeneration(OpenBAConfig(**sizes, tie_word_embeddings=False))
        >>> tie_head(model)
        Traceback (most recent call last):
        ValueError: tied must be false: the model's embedding and its output layer differ
    """
    embedding: Any = model.get_input_embeddings()
    if not torch.equal(model.lm_head.weight, embedding.weight):
        raise ValueError("tied must be false: the model's embedding and its output layer differ")
    model.lm_head.weight = embedding.weight


def find_blocks(model: OpenBAForConditionalGeneration) -> list[nn.Module]:
    """Returns the blocks of both stacks, which are sharded, compiled and recomputed one by one.

    The embedding and the output layer, which may be tied, are none of them.

    Args:
        model: not yet sharded.

    Example:
        >>> sizes = {"vocab_size": 9, "hidden_size": 8, "encoder_layers": 1, "decoder_layers": 2}
        >>> model = OpenBAForConditionalGeneration(OpenBAConfig(**sizes, tie_word_embeddings=False))
        >>> len(find_blocks(model))
        3
    """
    return [*model.encoder.block, *model.decoder.block]


def save_model(
    model: OpenBAForConditionalGeneration,
    tokenizer: OpenBATokenizer,
    folder: Path,
    *,
    is_first: bool = True,
) -> None:
    """Writes a model and its tokenizer as `save_pretrained` does; every process calls it.

    Args:
        model: sharded or not.
        tokenizer: of the model.
        folder: where to.
        is_first: whether this process writes.

    Raises:
        OSError: a file cannot be written.

    Example:
        >>> import tempfile
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     tokenizer = OpenBATokenizer(Path(folder, "spiece.model"))
        ...     sizes = {"vocab_size": tokenizer.padded_size(), "hidden_size": 8}
        ...     model = OpenBAForConditionalGeneration(OpenBAConfig(**sizes, encoder_layers=1))
        ...     save_model(model, tokenizer, Path(folder, "model"))
        ...     load_model(Path(folder, "model")).config.hidden_size
        8
    """
    weights: dict[str, Tensor] = {}
    for name, value in gather_weights(model).items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if is_first:  # one at a time: no device has to hold all of them
            weights[name] = whole.cpu()
    if not is_first:
        return
    if not model.config.tie_word_embeddings and _HEAD not in weights:
        weights[_HEAD] = weights[_EMBEDDING].clone()
    with no_bars():
        model.save_pretrained(folder, state_dict=weights)
        tokenizer.save_pretrained(folder)
