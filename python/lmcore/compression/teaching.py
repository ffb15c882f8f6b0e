"""Which model a pruned one learns from, and what that model says of a batch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmcore.compression.lineage import find_teacher
from lmcore.compression.recovered_models import find_model_folder
from lmcore.compression.recovery_config import RecoveryConfig
from lmcore.compression.teacher import Teacher
from lmcore.openba.objective import make_inputs
from lmcore.ops.cross_entropy import cross_entropy
from lmcore.ops.denoising import DenoisedBatch
from lmcore.training.checkpoint import hash_weights

#: In the place of a folder: nothing is learned from another model.
NO_TEACHER = "none"


def choose_teacher(config: RecoveryConfig, folder: Path) -> tuple[Path | None, str]:
    """Returns the folder of the model that is learned from, or None, and why in one line.

    Args:
        config: the settings.
        folder: of the pruned model.

    Raises:
        OSError: a file cannot be read.
        ValueError: a record of pruning is damaged, or the folder of the settings is no model.

    Example:
        >>> choose_teacher(RecoveryConfig(teacher="none"), Path("small"))
        (None, 'no teacher: none is wanted')
    """
    weights = config.distillation
    if config.teacher == NO_TEACHER:
        return None, "no teacher: none is wanted"
    if not (weights.weight or weights.hidden_weight):
        return None, "no teacher: distillation has no weight"
    if config.teacher is not None:
        place = find_model_folder(config.teacher)
        return place, f"teacher: {place}"
    found, reason = find_teacher(folder)
    if found is None:
        return None, f"no teacher: {folder}: {reason}"
    return found, f"teacher: {found}, from which {folder} was pruned"


def find_reference(config: RecoveryConfig, folder: Path) -> tuple[Path | None, str]:
    """Returns the folder of the model whose losses are the targets, or None and why.

    It is the teacher, or the model before pruning where nothing is learned from it.

    Args:
        config: the settings.
        folder: of the pruned model.

    Raises:
        OSError: a file cannot be read.
        ValueError: as for `choose_teacher`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     find_reference(RecoveryConfig(), Path(folder))
        (None, 'it has no pruning.json')
    """
    if config.teacher not in (None, NO_TEACHER):
        return find_model_folder(config.teacher), ""
    return find_teacher(folder)


def load_teacher(config: RecoveryConfig, place: Path, folder: Path, device: Any) -> Teacher:
    """Returns a teacher, whole in this process and in the precision of forward passes.

    Args:
        config: the settings.
        place: its folder.
        folder: of the pruned model.
        device: of this process.

    Raises:
        OSError: a file cannot be read.
        ValueError: it cannot be one, or is of another vocabulary.

    Example:
        >>> import tempfile
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
        >>> config = GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     GPT2LMHeadModel(config).save_pretrained(folder)
        ...     place = Path(folder)
        ...     load_teacher(RecoveryConfig(), place, place, "cpu").weight.shape
        torch.Size([9, 8])
    """
    half = config.device.precision == "bfloat16"
    return Teacher.load(place, folder, dtype="bfloat16" if half else "float32", device=device)


def hash_teacher(teacher: Teacher) -> str:
    """Returns what tells the weights of a teacher from others.

    Args:
        teacher: any.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
        >>> len(hash_teacher(Teacher(GPT2LMHeadModel(GPT2Config(**sizes)))))
        32
    """
    head = {"weight": teacher.weight}
    if teacher.bias is not None:
        head["bias"] = teacher.bias
    own = nn.ParameterDict({name: nn.Parameter(each, False) for name, each in head.items()})
    both = hash_weights(teacher.model) + hash_weights(own)
    return hashlib.blake2b(both, digest_size=16).hexdigest()


def sum_teacher_losses(
    teacher: Teacher, batch: DenoisedBatch, device: torch.device | None = None
) -> Tensor:
    """Returns a teacher's cross entropy of each row, added up over its labels: `[B]` float32.

    Where the student has fewer tokens, it is that among those.

    Args:
        teacher: on the device.
        batch: its rows, in the student's ids.
        device: of the teacher; the CPU if None.

    Example:
        >>> import numpy as np
        >>> from lmcore.compression.causal import make_causal
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
        >>> teacher = Teacher(GPT2LMHeadModel(GPT2Config(**sizes)))
        >>> sum_teacher_losses(teacher, make_causal(np.array([[3, 4, 5]]))).shape
        torch.Size([1])
    """
    inputs, labels = make_inputs(batch, device)
    own = {name: teacher.find_ids(each) if each.dtype == torch.int64 else each
           for name, each in inputs.items()}  # fmt: skip
    states = teacher.find_states(own).flatten(0, 1)
    losses = cross_entropy(
        states, teacher.weight, labels.flatten(), bias=teacher.bias, reduction="none"
    )
    return losses.view(labels.shape).sum(1)
