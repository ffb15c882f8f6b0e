"""Files of weights of others: `.safetensors`, and what `torch.save` wrote, without running code."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file by name.

    Args:
        path: a `.safetensors` file, or a file that `torch.save` wrote; the latter is read with
            `weights_only`, so it cannot run code.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else than a dict of plain tensors, or a tensor has more
            elements than the file has room for.

    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"weight": torch.ones(2)}, Path(folder, "model.pt"))
        ...     read_weights(Path(folder, "model.pt"))
        {'weight': tensor([1., 1.])}
    """
    import torch

    loaded: Any
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            loaded = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from None
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of types that are refused below
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        except OSError:
            raise
        # What comes out of a file that is something else is not limited to pickle's own errors.
        except Exception as error:
            problem = f"torch.load: {type(error).__name__}"
            raise ValueError(f"{path} is not a file of weights: {problem}") from None
    if not isinstance(loaded, dict) or not all(
        isinstance(v, torch.Tensor) for v in loaded.values()
    ):
        raise ValueError(f"{path} must hold a dict of tensors: got {type(loaded).__name__}")
    size = path.stat().st_size
    for name, tensor in loaded.items():
        _check(path, name, tensor, size)
    return dict(loaded)


def _check(path: Path, name: object, tensor: Tensor, size: int) -> None:
    import torch

    if not isinstance(name, str):
        raise ValueError(f"{path}: a tensor must have a name: got {name!r:.100}")
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ValueError(f"{path}: {name!r:.100} must be a plain tensor: got {tensor.layout}")
    # One element that stands for many would fill the memory when it is copied.
    if tensor.numel() * tensor.element_size() > size:
        raise ValueError(
            f"{path}: {name!r:.100} has the shape {list(tensor.shape)}, and the file {size} bytes"
        )
