"""The state of a run in one file, and folders of models: whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from lmcore._files import find_output, whole_file, write_folder

#: What a run writes into its folder.
RUN_FILES = (
    "checkpoint.pt", "config.json", "id_map.json", "log.jsonl", "model.safetensors", "recipe.json",
)  # fmt: skip

_ARRAY = "__array__"


def save_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes the state of a run under a temporary name and renames it when it is whole.

    Args:
        path: the file; its folder must exist.
        state: mappings, lists, numbers, texts, tensors and numpy arrays, nested as needed.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_state(Path(folder, "state.pt"), {"epoch": 3, "keys": np.arange(2)})
        ...     load_state(Path(folder, "state.pt"))
        {'epoch': 3, 'keys': array([0, 1])}
    """
    with whole_file(path) as place, open(place, "wb") as file:
        writer = _Writer(file)
        try:
            torch.save(_without_arrays(state), cast(BinaryIO, writer))
        except RuntimeError:  # what torch makes of a write that failed
            if writer.error is None:
                raise
            raise writer.error from None


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns what `save_state` wrote; tensors come to the CPU. No code of the file is run.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_state(Path(folder, "state.pt"), {"epoch": 3})
        ...     load_state(Path(folder, "state.pt"))
        {'epoch': 3}
    """
    with refusing(path):
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(type(state).__name__)
        return {key: _with_arrays(value) for key, value in state.items()}


@contextmanager
def refusing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Yields while a state is read or taken over: what goes wrong then is the file's fault.

    What stands in a file may make torch, numpy and whoever takes its values fail in any way, so
    that the kind of the error tells nothing.

    Args:
        path: the file, which the error names.

    Raises:
        ValueError: in place of any other error than those of the system and of memory.

    Example:
        >>> with refusing("checkpoint.pt"):
        ...     {}["model"]
        Traceback (most recent call last):
        ValueError: checkpoint.pt: not the state of a run: KeyError: 'model'
    """
    try:
        yield
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()[:1] or [type(error).__name__]
        reason = " ".join(lines[0].split())
        if isinstance(error, LookupError):  # whose text is a key or a place alone
            reason = f"{type(error).__name__}: {reason}"
        raise ValueError(f"{os.fspath(path)}: not the state of a run: {reason[:200]}") from error


def load_adam(optimizer: torch.optim.Adam, state: Any) -> None:
    """Writes saved moments into an Adam, where they fit to its parameters.

    torch looks at the number of parameters alone. A moment of another shape would be found in
    the next step, or, by a fused kernel, not at all. The options stay those that the optimizer
    was made with.

    Args:
        optimizer: of the parameters.
        state: what `optimizer.state_dict()` returned after a step.

    Raises:
        ValueError: it is no such state, or one of other parameters.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = torch.optim.Adam([weight])
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> load_adam(optimizer, optimizer.state_dict())
        >>> other = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
        >>> load_adam(other, optimizer.state_dict())
        Traceback (most recent call last):
        ValueError: exp_avg of parameter 0 must be [3] torch.float32: got [2] torch.float32
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = state.get("state") if isinstance(state, Mapping) else None
    if not isinstance(moments, Mapping) or set(moments) != set(range(len(parameters))):
        raise ValueError(f"a state of Adam must hold the moments of {len(parameters)} parameters")
    for number, parameter in enumerate(parameters):
        found = moments[number]
        if not isinstance(found, Mapping) or set(found) != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"parameter {number} must have step, exp_avg and exp_avg_sq")
        for name, value in found.items():
            shape, dtype = list(parameter.shape), parameter.dtype
            if name == "step":
                shape, dtype = [], torch.float32
            is_tensor = isinstance(value, Tensor)
            if not is_tensor or (list(value.shape), value.dtype) != (shape, dtype):
                got = f"{list(value.shape)} {value.dtype}" if is_tensor else repr(value)
                raise ValueError(
                    f"{name} of parameter {number} must be {shape} {dtype}: got {got[:100]}"
                )
    options = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": dict(moments), "param_groups": options})


def save_folder(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Writes files into a folder, each renamed to its place when all of them are whole.

    Other files of the folder stay.

    Args:
        path: the folder; it is made if it does not exist.
        write: is called with an empty folder and writes files there, such as
            `model.save_pretrained`.

    Raises:
        OSError: a file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_folder(folder, lambda new: Path(new, "a.txt").write_text("a"))
        ...     os.listdir(folder)
        ['a.txt']
    """
    write_folder(path, write)


def keep_apart(folder: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Returns nothing if no file of a run is one of its inputs, by whatever name or link.

    Args:
        folder: of the run; it need not exist.
        inputs: files that are read.

    Raises:
        ValueError: a file that the run writes is an input.

    Example:
        >>> keep_apart("runs/a", ["data.txt"])
    """
    given = list(inputs)
    for name in RUN_FILES:
        if Path(folder, name).exists():
            find_output(Path(folder, name), given)


@contextmanager
def no_bars() -> Iterator[None]:
    """Yields while transformers shows no bars for reading and writing weights.

    Example:
        >>> with no_bars():
        ...     pass
    """
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class _Writer:
    """A file for `torch.save` that remembers why the system refused a write."""

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _without_arrays(value: Any) -> Any:
    """Arrays as tensors of bytes: a file of tensors and plain values can be read safely."""
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value)
        flat = torch.from_numpy(data.reshape(-1).view(np.uint8).copy())
        return {_ARRAY: flat, "dtype": data.dtype.str, "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {key: _without_arrays(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without_arrays(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            flat = value[_ARRAY].numpy().view(np.dtype(value["dtype"]))
            return flat.reshape(value["shape"])
        return {key: _with_arrays(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_arrays(item) for item in value)
    return value
