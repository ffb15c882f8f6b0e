"""Trained backbones of folders and of files of weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from lmcore._json import read_json
from lmcore._manifest import find_model
from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.modeling_fmlp import FMLPModel
from lmcore.recsys.modeling_gru4rec import GRU4RecModel
from lmcore.recsys.modeling_ligr import LiGRModel
from lmcore.recsys.modeling_sasrec import SASRecModel, load_sasrec
from lmcore.training.checkpoint import no_bars
from lmcore.training.processes import find_device

__all__ = ["load_model"]

_MODELS: dict[str, type[SequenceModel]] = {
    "sasrec": SASRecModel,
    "gru4rec": GRU4RecModel,
    "fmlp": FMLPModel,
    "ligr": LiGRModel,
}

# transformers makes a text for each of them, whether or not a model has any.
_MOST_LABELS = 10_000


def load_model(
    path: str | os.PathLike[str], *, num_attention_heads: int = 1, device: str = "auto"
) -> SequenceModel:
    """Returns a trained backbone, ready for evaluation.

    Args:
        path: the folder of a run, whose best model it is, or of `save_pretrained`, or a file of
            SASRec weights in the names of pmixer's code (`.pth`, `.pt`, `.safetensors`).
        num_attention_heads: heads of the weights in such a file, which do not tell it.
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no model of this package, or the device does not exist.

    Example:
        >>> import tempfile
        >>> from lmcore.recsys.configuration_sasrec import SASRecConfig
        >>> from lmcore.recsys.modeling_sasrec import SASRecModel
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     SASRecModel(SASRecConfig(item_count=3)).save_pretrained(folder)
        ...     load_model(folder).config.item_count
        3
    """
    source = find_model(path)
    found = find_device(device)
    if source.is_file():
        return _prepare(load_sasrec(source, num_attention_heads=num_attention_heads), found)
    file = source / "config.json"
    if not file.is_file():
        if (source / "recipe.json").is_file():
            raise ValueError(
                f"{source}: a run without a model yet: the first comes with its first validation"
            )
        raise ValueError(f"{source}: no such file, or a folder without config.json")
    content = _read_config(file)
    kind = content.get("model_type")
    made = _MODELS.get(kind) if isinstance(kind, str) else None
    if made is None:
        known = ", ".join(_MODELS)
        raise ValueError(f"{file}: model_type must be one of {known}: {kind!r:.100}")
    with _refusing(file):
        config = cast(Any, made).config_class.from_pretrained(source)
    if not isinstance(config.dtype, torch.dtype | None):
        raise ValueError(f"{file}: not the configuration of a model: dtype is {config.dtype!r}")
    return _prepare(_read_weights(made, config, source), found)


def _read_config(file: Path) -> dict[str, Any]:
    """The configuration as it stands in its file, where it says one thing."""
    content = read_json(file, "the configuration of a model")
    if not isinstance(content, dict):
        raise ValueError(f"{file}: not the configuration of a model: {type(content).__name__}")
    labels = content.get("num_labels")
    if isinstance(labels, int | float) and labels > _MOST_LABELS:  # each gets a name
        raise ValueError(f"{file}: not the configuration of a model: num_labels is {labels:.0f}")
    return content


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Yields while transformers reads a configuration: it looks into many keys without a check."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        reason = reason.removeprefix("TypeError: ").removeprefix("ValueError: ")
        raise ValueError(f"{file}: not the configuration of a model: {reason}") from error


def _read_weights(made: type[SequenceModel], config: Any, source: Path) -> SequenceModel:
    """The model of a folder; ValueError unless its weights are those of the configuration."""
    file = source / "model.safetensors"
    _check_shapes(made, config, file)
    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # no table of what does not fit
    try:
        with no_bars():
            loader: Any = made
            model, report = loader.from_pretrained(
                source, config=config, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except SafetensorError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{file}: not the weights of a model: {reason}") from None
    finally:
        logging.set_verbosity(shown)
    wrong = [*report["missing_keys"], *(names[0] for names in report["mismatched_keys"])]
    if wrong:
        raise ValueError(f"{file}: {min(wrong)} is missing, or has another shape than config.json")
    return cast(SequenceModel, model)


def _check_shapes(made: type[SequenceModel], config: Any, file: Path) -> None:
    """Refuses weights that are not the configuration's, before memory is asked for either."""
    if not file.is_file():
        return
    with _refusing(file.with_name("config.json")), torch.device("meta"):
        loader: Any = made
        expected = {name: list(w.shape) for name, w in loader(config).state_dict().items()}
    try:
        with safe_open(file, "pt") as weights:
            names = set(weights.keys())
            found = {name: weights.get_slice(name).get_shape() for name in names & set(expected)}
    except SafetensorError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{file}: not the weights of a model: {reason}") from None
    wrong = [name for name, shape in expected.items() if found.get(name) != shape]
    if wrong:
        raise ValueError(f"{file}: {min(wrong)} is missing, or has another shape than config.json")


def _prepare(model: SequenceModel, device: torch.device) -> SequenceModel:
    torch.nn.Module.to(model, device)  # transformers' own `to` is untyped
    model.train(False)
    return model
