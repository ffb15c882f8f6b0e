"""The scorer of the package `detoxify`, with a checkpoint that is here.

Its checkpoints are pickles, which can run code when they are read: the caller says that a file is
trusted. Configuration and tokenizer lie beside the checkpoint, so that nothing is fetched; texts
that the package would truncate are read in windows.
"""

from __future__ import annotations

import os
from pathlib import Path

from lmcore._extras import optional_imports
from lmcore._text import find_reason
from lmcore.detox.classifier_scorer import ClassifierScorer


def load_detoxify(
    checkpoint: str | os.PathLike[str],
    *,
    unpickle: bool = False,
    label: str | None = None,
    device: str = "auto",
    batch_size: int = 32,
) -> ClassifierScorer:
    """Returns the scorer of a checkpoint of `detoxify`.

    Args:
        checkpoint: the file; the configuration and the tokenizer of its model lie in its folder.
        unpickle: that the file is trusted: reading it can run code.
        label: such as toxicity, insult or threat; toxicity if None.
        device: as for `lmcore.training.processes.find_device`.
        batch_size: windows at once.

    Raises:
        ImportError: the package is not installed.
        OSError: there is no such file.
        ValueError: the file is not said to be trusted, is no checkpoint, or has no such label.

    Example:
        >>> try:
        ...     load_detoxify("toxic.ckpt")
        ... except ValueError as error:
        ...     print(str(error).partition(":")[0])
        toxic.ckpt
    """
    place = os.fspath(checkpoint)
    if not unpickle:
        raise ValueError(
            f"{place}: a checkpoint of detoxify is a pickle, which can run code: "
            "say that it is trusted (--unpickle)"
        )
    with open(place, "rb"):  # named by the system's error where it cannot be read
        pass
    with optional_imports():
        from detoxify import Detoxify

        from lmcore.training.processes import find_device
    where = find_device(device)
    try:
        found = Detoxify(
            checkpoint=place, device=where, huggingface_config_path=os.fspath(Path(place).parent)
        )
    except MemoryError:
        raise
    except Exception as error:  # a pickle may fail in any way
        raise ValueError(f"{place}: no checkpoint of detoxify: {find_reason(error)}") from error
    return ClassifierScorer(
        found.tokenizer, found.model.eval().float(), label=label, labels=found.class_names,
        is_multi_label=True, batch_size=batch_size,
    )  # fmt: skip
