"""The state of a run: tensors, arrays and plain values, sharded or not, read without unpickling."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor

from lmcore._files import whole_file
from lmcore.training.processes import Processes

_ARRAY = "__array__"
_SHARDED = "__sharded__"
_STATE, _SHARDS = "state.pt", "shards"
# torch makes a file of shards in memory, twice, before it writes it.
_FILE_BYTES = 1 << 28


def save(folder: Path, state: Mapping[str, Any], processes: Processes | None = None) -> None:
    """Writes a state into an empty folder; every process calls it.

    What is not sharded is equal in all processes, and goes into one file that the first one
    writes. Shards are written by torch's distributed checkpoints in the form of safetensors:
    their usual form keeps a pickle, which runs what a stranger wrote. No process gathers what is
    sharded: each writes its own shards, one file of at most 256 MiB (or of one tensor) after the
    other.

    Args:
        folder: an empty one.
        state: mappings, lists, numbers, texts, tensors and numpy arrays, nested as needed.
        processes: of the run; this one alone if None.

    Raises:
        OSError: a file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder), {"step": 3, "keys": np.arange(2)})
        ...     load(Path(folder))
        {'step': 3, 'keys': array([0, 1])}
    """
    processes = processes or Processes()
    shards: dict[str, DTensor] = {}
    whole = _take_shards(state, shards, "")
    processes.first(lambda: save_state(folder / _STATE, whole))
    if not shards:
        return
    from torch.distributed import checkpoint as module

    checkpoint: Any = module

    path = folder / _SHARDS
    processes.first(path.mkdir)
    writer = checkpoint.HuggingFaceStorageWriter(
        str(path), fqn_to_index_mapping=_share_out(shards), save_distributed=True
    )
    processes.together(lambda: checkpoint.save(dict(shards), storage_writer=writer))


def load(
    folder: Path,
    processes: Processes | None = None,
    template: Callable[[], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Returns what `save` wrote, as the processes that call it hold it; all of them call it.

    Each process reads its own shards alone, whatever number of processes wrote them.

    Args:
        folder: where it was saved.
        processes: of the run, which may be more or fewer than those that saved.
        template: gives a state of the same run, which tells where shards belong.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file holds something else, or shards have no place in the template.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder), {"step": 3})
        ...     load(Path(folder))
        {'step': 3}
    """
    processes = processes or Processes()
    shards = folder / _SHARDS
    if template is None or (processes.count == 1 and not shards.exists()):
        return load_state(folder / _STATE)
    # What one process wrote is whole, and its pages are the file's until they are shared out.
    state = _load_state(folder / _STATE, mapped=True)
    rooms: dict[str, Tensor] = {}
    with refusing(folder / _STATE):
        # The tensors of the template are gone before there is room for others.
        places = _find_places(state, template())
        state = _make_rooms(state, places, rooms)
    if rooms:
        from torch.distributed import checkpoint as module

        checkpoint: Any = module

        reader = checkpoint.HuggingFaceStorageReader(str(shards))
        with refusing(shards), warnings.catch_warnings():
            # One process alone is what torch warns of.
            warnings.filterwarnings("ignore", ".*torch.distributed is disabled")
            checkpoint.load(rooms, storage_reader=reader, no_dist=processes.count == 1)
    return cast(dict[str, Any], state)


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
    with whole_file(path) as temporary, open(temporary, "wb") as file:
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
    return _load_state(path)


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


def gather_weights(model: nn.Module, *, trained: bool = False) -> dict[str, Tensor]:
    """Returns weights by name, each once, sharded ones as they are in the state of a run.

    Args:
        model: any.
        trained: whether those that are not trained are left out.

    Example:
        >>> sorted(gather_weights(nn.Linear(2, 1)))
        ['bias', 'weight']
    """
    # This gives shards back, also right after a pass, when parameters are whole for a while.
    values = model.state_dict()
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    kept = [name for name, p in model.named_parameters() if p.requires_grad or not trained]
    return {name: values[name] for name in [*kept, *(n for n in values if n not in known)]}


def take_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Writes the weights that are trained into a model, once all of them are looked at.

    Args:
        model: any.
        weights: what `gather_weights` gave for `trained`.

    Raises:
        ValueError: they are those of another model.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> take_weights(layer, {"weight": torch.zeros(1, 2), "bias": torch.ones(1)})
        >>> layer(torch.ones(2)).item()
        1.0
    """
    own = gather_weights(model, trained=True)
    if set(weights) != set(own):
        raise ValueError(f"model must hold the {len(own)} weights that are trained")
    for name, value in own.items():
        found = weights[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            raise ValueError(
                f"{name} must be {list(value.shape)} {value.dtype}: got "
                f"{list(found.shape)} {found.dtype}"
            )
    model.load_state_dict(weights, strict=False)


def hash_weights(model: nn.Module) -> bytes:
    """Returns what tells the weights of a model from others.

    Args:
        model: any; not sharded.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> hash_weights(layer) == hash_weights(nn.Linear(2, 1))
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(gather_weights(model).items()):
        digest.update(f"{name} {list(weight.shape)} {weight.dtype} ".encode())
        digest.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def check_weights(model: nn.Module) -> None:
    """Checks that all weights are finite.

    Args:
        model: any; of a sharded one the parts of this process are looked at.

    Raises:
        FloatingPointError: one is not; the text names it.

    Example:
        >>> check_weights(nn.Linear(2, 1))
    """
    for name, weight in model.named_parameters():
        local = weight.to_local() if isinstance(weight, DTensor) else weight
        if not bool(local.isfinite().all()):
            raise FloatingPointError(f"{name} is not finite; a smaller lr may help")


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


def _load_state(path: str | os.PathLike[str], *, mapped: bool = False) -> dict[str, Any]:
    with refusing(path):
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        if not isinstance(state, dict):
            raise ValueError(type(state).__name__)
        return {key: _with_arrays(value) for key, value in state.items()}


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


def _take_shards(value: Any, shards: dict[str, DTensor], name: str) -> Any:
    """The value with a mark in place of each sharded tensor, which goes to `shards`."""
    if isinstance(value, DTensor):
        shards[name] = value
        return {_SHARDED: name}
    if isinstance(value, Mapping):
        return {key: _take_shards(item, shards, f"{name}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = (_take_shards(item, shards, f"{name}/{n}") for n, item in enumerate(value))
        return type(value)(items)
    return value


def _share_out(shards: Mapping[str, DTensor]) -> dict[str, int]:
    """The number of the file, from 1, of each shard, in every process the same."""
    files: dict[str, int] = {}
    file, size = 1, 0
    for name, value in shards.items():
        # The largest shard, that of the first process.
        own = -(-value.numel() // value.device_mesh.size()) * value.element_size()
        if size and size + own > _FILE_BYTES:
            file, size = file + 1, 0
        files[name], size = file, size + own
    return files


class _Place(NamedTuple):
    """Where a tensor lies, without it."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    local_shape: torch.Size
    mesh: DeviceMesh | None = None
    placements: tuple[Any, ...] = ()

    @classmethod
    def of(cls, value: Tensor) -> _Place:
        whole = (value.shape, value.stride(), value.dtype, value.device)
        if not isinstance(value, DTensor):
            return cls(*whole, value.shape)
        return cls(*whole, value.to_local().shape, value.device_mesh, value.placements)

    def make_room(self) -> Tensor:
        room = torch.empty(self.local_shape, dtype=self.dtype, device=self.device)
        if self.mesh is None:
            return room
        return DTensor.from_local(
            room, self.mesh, self.placements, run_check=False, shape=self.shape, stride=self.stride
        )

    def share_out(self, whole: Tensor) -> Tensor:
        assert self.mesh is not None
        return distribute_tensor(whole.to(self.device), self.mesh, self.placements)


def _find_places(value: Any, template: Any) -> Any:
    """The places of the template's tensors, in the form of the value."""
    if isinstance(template, Tensor):
        return _Place.of(template)
    if isinstance(value, dict):
        inner = template if isinstance(template, Mapping) else {}
        return {key: _find_places(item, inner.get(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        parts = template if isinstance(template, list | tuple) else ()
        padded = [*parts, *([None] * (len(value) - len(parts)))]
        return [_find_places(i, t) for i, t in zip(value, padded, strict=False)]
    return None


def _make_rooms(value: Any, place: Any, rooms: dict[str, Tensor]) -> Any:
    """The value with room for each shard, and whole tensors shared out where they are sharded."""
    if isinstance(value, dict) and _SHARDED in value:
        if not isinstance(place, _Place):
            raise ValueError(f"{value[_SHARDED]} is no tensor of this run")
        rooms[value[_SHARDED]] = room = place.make_room()
        return room
    if isinstance(value, Tensor):
        is_sharded = isinstance(place, _Place) and place.mesh is not None
        # A copy: a mapped file may vanish.
        return place.share_out(value) if is_sharded else value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        inner = place if isinstance(place, dict) else {}
        return {key: _make_rooms(item, inner.get(key), rooms) for key, item in value.items()}
    if isinstance(value, list | tuple):
        places = place if isinstance(place, list) else [None] * len(value)
        return type(value)(_make_rooms(i, p, rooms) for i, p in zip(value, places, strict=True))
    return value
