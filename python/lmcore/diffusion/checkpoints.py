"""Checkpoints of DiffuSeq and of Bridge-Gap Diffusion, as models and as folders of ours."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lmcore._weights import read_weights
from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig
from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel

_TABLE, _HEAD = "word_embedding.weight", "lm_head.weight"
_LAYER = re.compile(r"input_transformers\.layer\.(\d+)\.")
# Of BERT, whose configuration the authors take.
_HEAD_SIZE = 64


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    num_attention_heads: int | None = None,
    table: Literal["lm_head", "word_embedding"] = "lm_head",
    **settings: Any,
) -> TextDiffusionModel:
    """Returns a model with the weights of a file in the names of the released code.

    Sizes are read from the shapes.  A file of averaged weights (`ema_*.pt`) has two tables of word
    embeddings, which are one parameter: the average under `word_embedding`, and what the last step
    left under `lm_head`.  The released code copies the latter last, and so samples with it; so does
    this, with a warning, unless `table` says otherwise.

    Args:
        path: a `.pt` file, read with `weights_only`, so that it cannot run code; or `.safetensors`.
        num_attention_heads: which leave no trace in the weights; None: heads of size 64, as BERT's.
        table: which of the two tables counts where they differ.
        settings: other fields of the configuration: `dropout`, `diffusion_steps`,
            `noise_schedule`, `pad_token_id`, `row_length`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else than such a model, or a setting does not fit.

    Example:
        >>> import tempfile
        >>> config = TextDiffusionConfig(
        ...     vocab_size=9, latent_size=4, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, time_size=4,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "ema_0.9999_000100.pt")
        ...     torch.save(TextDiffusionModel(config).state_dict(), path)
        ...     load_checkpoint(path, num_attention_heads=2).config.hidden_size
        8
    """
    path = Path(path)
    if table not in ("lm_head", "word_embedding"):
        raise ValueError(f"table must be lm_head or word_embedding: got {table!r}")
    weights = read_weights(path)
    weights.pop("position_ids", None)
    word_table = _choose_table(path, weights, table)
    sizes = _read_sizes(path, weights, word_table)
    if num_attention_heads is None:
        if sizes["hidden_size"] % _HEAD_SIZE:
            raise ValueError(
                f"num_attention_heads must be given: the hidden size {sizes['hidden_size']} has no "
                f"heads of size {_HEAD_SIZE}"
            )
        num_attention_heads = sizes["hidden_size"] // _HEAD_SIZE
    config = TextDiffusionConfig(**sizes, num_attention_heads=num_attention_heads, **settings)
    with torch.device("meta"):
        model = TextDiffusionModel(config)
    weights[_TABLE] = weights[_HEAD] = word_table
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{path} holds no text diffusion model: {problem}") from None
    model.tie_weights()
    model.train(False)
    return model


def convert_checkpoint(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], **options: Any
) -> TextDiffusionModel:
    """Writes a checkpoint of the released code as a folder that `from_pretrained` reads.

    Args:
        path: as for `load_checkpoint`.
        folder: which is not there yet; it is there whole or not at all.
        options: as for `load_checkpoint`.

    Returns:
        The model.

    Raises:
        OSError: the file cannot be read, the folder is there or cannot be written.
        ValueError: the file holds something else, or a setting does not fit.

    Example:
        >>> import tempfile
        >>> config = TextDiffusionConfig(
        ...     vocab_size=9, latent_size=4, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, time_size=4,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, made = Path(folder, "model000100.pt"), Path(folder, "model")
        ...     torch.save(TextDiffusionModel(config).state_dict(), path)
        ...     _ = convert_checkpoint(path, made, num_attention_heads=2)
        ...     sorted(file.name for file in made.iterdir())
        ['config.json', 'model.safetensors']
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder}: is there already")
    model = load_checkpoint(path, **options)
    temporary = folder.with_name(f".lmcore-{secrets.token_hex(8)}")
    temporary.mkdir()
    try:
        model.save_pretrained(temporary)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return model


def _choose_table(path: Path, weights: dict[str, Tensor], name: str) -> Tensor:
    """The one table of words of two that a file may have."""
    tables = {key: weights[key] for key in (_TABLE, _HEAD) if key in weights}
    if not tables:
        raise ValueError(f"{path} holds no text diffusion model: {_TABLE} is missing")
    if len(tables) == 2 and not torch.equal(tables[_TABLE], tables[_HEAD]):
        if tables[_TABLE].shape != tables[_HEAD].shape:
            shapes = " and ".join(str(list(table.shape)) for table in tables.values())
            raise ValueError(f"{path}: its tables of words have two shapes: {shapes}")
        warnings.warn(
            f"{path} has two tables of word embeddings, and {name}.weight is taken: in files of "
            "averages the average is word_embedding.weight, and the released code uses the other",
            UserWarning,
            stacklevel=3,
        )
        return tables[f"{name}.weight"]
    return next(iter(tables.values()))


def _read_sizes(path: Path, weights: dict[str, Tensor], table: Tensor) -> dict[str, Any]:
    """The fields of a configuration that shapes tell."""

    def shape(name: str, axes: int = 2) -> tuple[int, ...]:
        if name not in weights:
            raise ValueError(f"{path} holds no text diffusion model: {name} is missing")
        found = tuple(weights[name].shape)
        if len(found) != axes:
            raise ValueError(f"{path}: {name} must have {axes} axes: got {list(found)}")
        return found

    weights[_TABLE] = table
    layers = {int(found[1]) for name in weights if (found := _LAYER.match(name))}
    if not layers:
        raise ValueError(f"{path} holds no text diffusion model: it has no layer")
    return {
        "vocab_size": shape(_TABLE)[0],
        "latent_size": shape(_TABLE)[1],
        "hidden_size": shape("position_embeddings.weight")[1],
        "max_position_embeddings": shape("position_embeddings.weight")[0],
        "time_size": shape("time_embed.0.weight")[1],
        "intermediate_size": shape("input_transformers.layer.0.intermediate.dense.weight")[0],
        "num_hidden_layers": len(layers),
    }
