"""A training checkpoint of the authors becomes a folder that `from_pretrained` opens."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import GenerationConfig

from lmcore._shards import SHARD_BYTES, NewTensor, ShardFile, read_recipe, write_shards
from lmcore._stored import TORCH_NAMES, find_fingerprint
from lmcore.openba.folders import check_target, new_folder
from lmcore.openba.joining import find_config, join_ranks, write_joined
from lmcore.openba.megatron import read_ranks
from lmcore.openba.tokenization_openba import OpenBATokenizer, load_tokenizer

#: Types that weights can be written in, by their names in torch.
DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@dataclass(kw_only=True, slots=True, frozen=True)
class ConversionSummary:
    """What was written."""

    iteration: int | None
    """Of the training; None where the checkpoint does not say."""
    ranks: int
    """Of tensor parallelism."""
    files: list[str]
    """Names of the files of weights, in order; without the index."""
    kept_files: int
    """Those that an earlier start wrote."""
    tensors: int
    parameters: int
    """Elements of all tensors; the table stands among them twice."""
    bytes: int
    """Of all files of weights."""
    dtypes: dict[str, int]
    """Tensors by their type in torch."""


def convert(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    iteration: int | None = None,
    dtype: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], object] | None = None,
) -> ConversionSummary:
    """Writes a training checkpoint of Megatron as a model's folder, and returns what that holds.

    Everything is checked before the first byte is written: each rank holds its part of all
    tensors and no others, shapes are those of the arguments, and what all ranks have is the same
    on all of them. Weights are streamed in blocks, so that memory does not grow with the model;
    the optimizer's state is not read. Rows that fill the vocabulary up stay, as in released
    folders. The folder gets its name when it is whole; a run that was killed goes on.

    Args:
        folder: of a training (with `latest_checkpointed_iteration.txt`), or of one iteration.
        out: another folder, which does not exist or is empty.
        iteration: which one; the last one if None.
        dtype: "float16", "bfloat16" or "float32"; that of the checkpoint if None.
        tokenizer: a SentencePiece file, or the folder of a tokenizer, that goes along.
        max_shard_bytes: of the tensors in a file.
        progress: called with the bytes that are written so far, and in all.

    Raises:
        FileExistsError: the output holds something, or another process writes it.
        OSError: a file cannot be read or written.
        ValueError: the folder holds no whole checkpoint; the text names the file and the tensor.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     convert(folder, Path(folder, "model"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: ...: the output lies in the input
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be {', '.join(DTYPES)}: got {dtype!r:.40}")
    source, target = Path(folder), Path(out)
    check_target(target, source)
    ranks = read_ranks(source, iteration)
    config = find_config(ranks[0], len(ranks))
    joined = {tensor.name: tensor for tensor in join_ranks(ranks, config)}
    dtypes = {
        name: tensor.dtype if dtype is None else DTYPES[dtype] for name, tensor in joined.items()
    }
    config.dtype = TORCH_NAMES[dtypes["shared_embedding.weight"]]
    words = None if tokenizer is None else _load_words(tokenizer, config.vocab_size)
    files = [rank.file for rank in ranks]
    fingerprint = find_fingerprint(files)
    recipe = {
        "source": fingerprint,
        "places": [os.path.realpath(file) for file in files],
        "dtype": dtype,
        "max_shard_bytes": max_shard_bytes,
    }
    tensors = [
        NewTensor(name=name, dtype=dtypes[name], shape=tensor.shape)
        for name, tensor in joined.items()
    ]

    def check() -> None:
        if find_fingerprint(files) != fingerprint:
            raise ValueError(f"{source}: changed while it was read")

    def write(file: ShardFile, some: Sequence[NewTensor]) -> None:
        for tensor in some:
            write_joined(file, joined[tensor.name], tensor.dtype)

    # What is of another run, or whole but for its name, is not gone on with.
    with new_folder(target, source, lambda part: read_recipe(part) == recipe) as part:
        config.save_pretrained(part)
        GenerationConfig.from_model_config(config).save_pretrained(part)
        if words is not None:
            words.save_pretrained(part)
        written = write_shards(
            part, tensors, write, recipe, check=check, max_shard_bytes=max_shard_bytes,
            progress=progress,
        )  # fmt: skip
    return ConversionSummary(
        iteration=ranks[0].iteration,
        ranks=len(ranks),
        files=written.files,
        kept_files=written.kept_files,
        tensors=len(tensors),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        bytes=written.bytes,
        dtypes=dict(Counter(TORCH_NAMES[kind] for kind in dtypes.values())),
    )


def _load_words(name: str | os.PathLike[str], size: int) -> OpenBATokenizer:
    words = load_tokenizer(name)
    if len(words) > size:
        raise ValueError(f"{os.fspath(name)}: it has {len(words)} tokens, and the model {size}")
    return words
