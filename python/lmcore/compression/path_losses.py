"""The losses of a path's models in validation, on the same texts before a cut and after it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmcore.compression.recovered_models import RecoveredModel, load_training_tokenizer
from lmcore.compression.recovery_config import RecoveryConfig
from lmcore.compression.recovery_data import find_texts, pack_texts
from lmcore.compression.recovery_run import RecoveryRun
from lmcore.openba.data import TrainData
from lmcore.training.processes import (
    Processes,
    choose_precision,
    find_device,
    use_threads,
)

#: Where nothing is trained, there is nothing to come back to.
UNKNOWN = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(kw_only=True, slots=True, frozen=True)
class ValidationLosses:
    """What a model's losses in validation are."""

    objective: str
    """Under which they are measured."""
    losses: dict[str, float]
    """`loss`, their mean over denoisers, and `loss_` with the name of each."""


def validate_model(
    model: str | os.PathLike[str], config: RecoveryConfig, valid: Any
) -> ValidationLosses:
    """Returns the losses of a model in validation, as the training of it would measure them.

    Args:
        model: its folder.
        config: the settings of such a training.
        valid: packed texts.

    Raises:
        OSError: a file cannot be read.
        ValueError: the model cannot be trained so, or texts are missing, or of another length.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from lmcore.training.models import make_tokenizer, save_model
        >>> sizes = {"vocab_size": 300, "n_layer": 1, "n_embd": 8, "n_head": 2}
        >>> made = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None))
        >>> config = RecoveryConfig(text_tokens=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(made, make_tokenizer(["Ada"], 300), Path(folder))
        ...     found = validate_model(folder, config, np.arange(16).reshape(2, 8))
        >>> found.objective, [*found.losses]
        ('causal', ['loss', 'loss_causal'])
    """
    device = choose_precision(config.device, progress=False)
    targets = config.targets or UNKNOWN
    config = replace(config, model=os.fspath(model), device=device, targets=targets)
    with use_threads(device.threads):
        processes = Processes(device=find_device(device.device))
        items = TrainData(config, valid, valid)
        run = RecoveryRun(config, items, RecoveredModel(model), processes=processes)
        return ValidationLosses(objective=run.objective, losses=run.validate())


def pack_for(model: str | os.PathLike[str], config: RecoveryConfig, data: Any, folder: Path) -> Any:
    """Returns what a model is trained on as packed texts; files are packed by its tokenizer.

    Args:
        model: its folder.
        config: the settings of its training.
        data: as `recover` takes it.
        folder: where packed texts go, unless they are there.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a text cannot be used, or the model has no tokenizer.

    Example:
        >>> pack_for("small", RecoveryConfig(), ["corpus"], Path("packed"))  # packed already
        'corpus'
    """
    if data is None:
        return None
    files, packed = find_texts(data)
    if not files:
        return packed
    return pack_texts(
        files, load_training_tokenizer(Path(model)), folder, length=config.text_tokens
    )
