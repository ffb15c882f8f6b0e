"""Pruned models that are trained: loaded, prepared, and written with all that belongs to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lmcore._manifest import find_model
from lmcore.compression.loading import find_kind, load_model
from lmcore.compression.model_folders import TOKENIZER_FILES
from lmcore.compression.record import copy_record
from lmcore.compression.vocabulary_tensors import load_config
from lmcore.openba import models as openba_models
from lmcore.openba.stages import STAGE_FILE
from lmcore.openba.tokenization_openba import load_tokenizer as load_openba_tokenizer
from lmcore.training import models
from lmcore.training.config import DeviceConfig

_OPENBA = "openba"


class RecoveredModel:
    """A model of a folder, its tokenizer, and what else stands beside it.

    Args:
        folder: of the model, or of a run, whose best model it is.
        tokenizer: in the place of that of the folder.

    Attributes:
        folder: of the model.
        model: its weights are float32.
        tokenizer: of its texts.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no encoder-decoder or decoder, or no tokenizer that fits.

    Example:
        >>> RecoveredModel("nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """

    def __init__(self, folder: str | os.PathLike[str], tokenizer: Any = None) -> None:
        self.folder = find_model_folder(folder)
        find_model_kind(self.folder)
        self._own_tokenizer = tokenizer is None
        self.tokenizer = load_training_tokenizer(self.folder) if tokenizer is None else tokenizer
        self.model: Any = load_model(self.folder)
        _check_fit(self.folder, self.model, self.tokenizer)

    @property
    def is_openba(self) -> bool:
        """Whether it is one of OpenBA's kind."""
        return bool(self.model.config.model_type == _OPENBA)

    def prepare(self, lengths: tuple[int, int], *, tied: bool | None) -> None:
        """Lets the model be trained at some lengths; OpenBA's two equal matrices become one.

        Args:
            lengths: positions of encoder and decoder.
            tied: whether they do; None: if they are equal.

        Raises:
            ValueError: there are fewer positions, or the matrices differ.
        """
        if not self.is_openba:
            most = getattr(self.model.config, "max_position_embeddings", None)
            if most is not None and max(lengths) > most:
                raise ValueError(
                    f"text_tokens must be less: a row has {max(lengths)} tokens, and the model has "
                    f"{most} positions"
                )
            return
        openba_models.grow_positions(self.model, lengths)
        embedding = self.model.get_input_embeddings().weight
        if tied is None:
            tied = torch.equal(self.model.lm_head.weight, embedding)
        if tied and not self.model.config.tie_word_embeddings:
            openba_models.tie_head(self.model)

    def list_blocks(self, device: DeviceConfig) -> tuple[Sequence[nn.Module], DeviceConfig]:
        """Returns the blocks that are sharded one by one, and what is still asked for of them.

        Args:
            device: what is asked for.
        """
        if self.is_openba:
            return openba_models.find_blocks(self.model), device
        if device.recompute:  # by transformers' own way, which knows of caches
            models.recompute_layers(self.model)
        return models.find_blocks(self.model), replace(device, recompute=False)

    def save(self, folder: Path, *, is_first: bool = True) -> None:
        """Writes model, tokenizer, and what pruning and training say of it; every process calls it.

        Args:
            folder: where to.
            is_first: whether this process writes.

        Raises:
            OSError: a file cannot be written.
        """
        tokenizer: Any = _Files(self.folder) if self._own_tokenizer else self.tokenizer
        saver = openba_models.save_model if self.is_openba else models.save_model
        saver(self.model, tokenizer, folder, is_first=is_first)
        if is_first:
            copy_record(self.folder, folder)
            _copy(self.folder, folder, (STAGE_FILE,))


def find_model_folder(folder: str | os.PathLike[str]) -> Path:
    """Returns the folder of a model.

    Args:
        folder: of the model, or of a run, whose best model it is.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is none, or it is not the one that the run wrote.

    Example:
        >>> find_model_folder("nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    found = find_model(folder)
    if not (found / "config.json").is_file():
        problem = "no such folder of a model"
        if found.exists():
            problem = "not a model: there is no config.json in it"
        raise ValueError(f"{os.fspath(folder)}: {problem}")
    return found


def find_model_kind(folder: Path) -> str:
    """Returns whether a model is an `encoder-decoder` or a `decoder`.

    Args:
        folder: of the model.

    Raises:
        ValueError: it is an encoder alone, or transformers does not know it.

    Example:
        >>> import tempfile
        >>> from transformers import T5Config
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     T5Config(vocab_size=300).save_pretrained(folder)
        ...     find_model_kind(Path(folder))
        'encoder-decoder'
    """
    kind = find_kind(load_config(folder))
    if kind == "encoder":
        raise ValueError(
            f"{folder}: expected an encoder-decoder or a decoder: an encoder alone has no "
            "objective here"
        )
    return kind


class _Files:
    """A tokenizer that is written as the files that it came from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_pretrained(self, folder: Path) -> None:
        _copy(self.folder, folder, TOKENIZER_FILES)


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def load_training_tokenizer(folder: Path) -> Any:
    """Returns the tokenizer of a model's folder, as texts of training are packed with it.

    Args:
        folder: of the model.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is none that can be loaded.

    Example:
        >>> import tempfile
        >>> from transformers import T5Config
        >>> from lmcore.training.models import make_tokenizer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     T5Config(vocab_size=300).save_pretrained(folder)
        ...     _ = make_tokenizer(["Ada"], 300).save_pretrained(folder)
        ...     load_training_tokenizer(Path(folder)).padding_side
        'right'
    """
    if load_config(folder).model_type == _OPENBA:
        return load_openba_tokenizer(folder)
    return models.load_tokenizer(folder)


def _check_fit(folder: Path, model: Any, tokenizer: Any) -> None:
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ValueError(
            f"{folder}: the tokenizer and the model do not fit: the tokenizer has "
            f"{len(tokenizer)} tokens, and the model has {rows} embeddings"
        )
