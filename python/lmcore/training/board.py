"""The numbers of the log for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmcore._extras import optional_imports


@contextmanager
def open_board(folder: Path, done: int = 0) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields what writes a line of the log into the folder `tensorboard` of a run.

    Args:
        folder: of the run.
        done: steps that are done; what an earlier call wrote of later ones is no longer shown.

    Raises:
        MissingExtra: tensorboard is not installed.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, open_board(Path(folder)) as write:
        ...     write({"step": 1, "loss": 0.5, "metrics": {"accuracy": 1.0}})
    """
    with optional_imports():
        from torch.utils.tensorboard import SummaryWriter
    made: Any = SummaryWriter
    writer = made(str(folder / "tensorboard"), purge_step=done + 1)

    def write(record: Mapping[str, Any]) -> None:
        values = {**record, **{f"validation/{k}": v for k, v in record.get("metrics", {}).items()}}
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float):
                writer.add_scalar(name, value, record["step"])
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
