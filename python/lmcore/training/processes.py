"""The processes of a run: devices, threads, and what they tell each other."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from lmcore.training.config import DeviceConfig

Result = TypeVar("Result")

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that share the work of each step; one alone without torchrun.

    A batch is divided among `data_count` processes. The convention of this house: each divides
    its loss by the counts of the whole batch, and gradients are added up, so that a step is that
    of one process up to rounding, however unequal the parts are.

    Attributes:
        rank: of this process, from 0.
        data_rank: which part of each batch it computes, from 0.
        count: of all processes.
        device: on which this process computes.
        mesh: how they are arranged; its dimension `data` holds those that share a batch.
    """

    rank: int = 0
    data_rank: int = 0
    count: int = 1
    device: torch.device = _CPU
    mesh: DeviceMesh | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def data_count(self) -> int:
        """Into how many parts a batch is divided."""
        return self.count if self.mesh is None else int(self.mesh["data"].size())

    @property
    def _group(self) -> Any:
        return None if self.mesh is None else self.mesh["data"].get_group()

    def join(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        """The parts of all processes one after the other.

        Args:
            part: `[sizes[data_rank], ...]`, of this process, without a graph.
            sizes: the first dimension in each process.
        """
        if self.data_count == 1:
            return part
        room = part.new_zeros((max(sizes), *part.shape[1:]))
        room[: len(part)] = part
        rooms = [torch.empty_like(room) for _ in sizes]
        distributed.all_gather(rooms, room, group=self._group)
        return torch.cat([other[:size] for other, size in zip(rooms, sizes, strict=True)])

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes of a tensor without a graph, in place."""
        if self.data_count > 1:
            distributed.all_reduce(value, group=self._group)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes of a tensor without a graph, in place."""
        return self.sum(value).div_(self.data_count) if self.data_count > 1 else value

    def largest(self, value: Tensor) -> Tensor:
        """The largest of each number over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(value, distributed.ReduceOp.MAX)
        return value

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds up the gradients of all processes, in place, in one message for each type.

        A parameter that has a gradient in no process has none afterwards, as in one process: a
        zero would let it decay. Sharded parameters are left out: FSDP2 has added theirs up.
        """
        if self.data_count == 1:
            return
        kinds: dict[Any, list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
        for kept in kinds.values():
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in kept]
            # How many processes have each of them travels in the same message.
            held = gradients[0].new_tensor([float(p.grad is not None) for p in kept])
            flat = torch.cat([*(g.reshape(-1) for g in gradients), held])
            distributed.all_reduce(flat, group=self._group)
            *pieces, held = flat.split([*(p.numel() for p in kept), len(kept)])
            for parameter, piece, number in zip(kept, pieces, held.tolist(), strict=True):
                parameter.grad = piece.view_as(parameter) if number else None

    def agree(self, value: Any) -> Any:
        """What the first process has."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, device=self.device)
        return box[0]

    def gather(self, value: Result) -> list[Result]:
        """What each process has, plain values of any size, in the order of their ranks."""
        found: list[Any] = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(found, value)
        return found

    def together(self, call: Callable[[], Result]) -> Result:
        """The result of a call in this process, once it succeeded in all.

        Where one fails and the others go on, they would wait for it for ever; here all raise.

        Args:
            call: what every process does.

        Raises:
            Exception: what the call raised here, or in the first process in which it failed.
        """
        if self.count == 1:
            return call()
        result: Any = None
        problem: Exception | None = None
        try:
            result = call()
        except Exception as error:
            problem = error
        for other in (problem, *self.gather(problem)):
            if other is not None:
                raise other
        return result  # type: ignore[no-any-return]

    def first(self, call: Callable[[], Result]) -> Result:
        """The result of a call that the first process alone makes.

        Args:
            call: what it does.

        Raises:
            Exception: what it raised there, in every process.
        """
        return self.agree(self.together(lambda: call() if self.is_first else None))  # type: ignore[no-any-return]

    def shard(self, model: nn.Module, blocks: Iterable[nn.Module], config: DeviceConfig) -> None:
        """Recomputes, compiles and shards a model's blocks, each as the configuration says.

        A sharded model generates like another: `generate` gathers what it needs.

        Args:
            model: on this process's device; its parameters are shards afterwards.
            blocks: modules of it whose weights are gathered together, such as its layers. A
                module whose weights are tied to others' must not be one.
            config: what is asked for.

        Raises:
            ValueError: sharding is asked for where one process runs, or cannot be had with the
                precision, or a block's weights are tied to others'.
        """
        chosen = list(blocks)
        if config.sharding != "none" and self.data_count == 1:
            raise ValueError(
                "sharding must be none where one process runs; torchrun starts several"
            )
        if config.sharding != "none" and config.precision == "float16":
            raise ValueError("precision must be bfloat16 or float32 where sharding is full")
        if config.recompute:
            from torch.utils.checkpoint import checkpoint

            for block in chosen:
                block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        if config.compile:
            for block in chosen:
                block.compile()
        if config.sharding == "none":
            return
        from torch.distributed.fsdp import (
            MixedPrecisionPolicy,
            fully_shard,
            register_fsdp_forward_method,
        )

        _refuse_tied(model, chosen)
        assert self.mesh is not None
        half = torch.bfloat16 if config.precision == "bfloat16" else None
        options: dict[str, Any] = {
            "mesh": self.mesh["data"],
            "mp_policy": MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32),
        }
        for block in chosen:
            fully_shard(block, **options)
        fully_shard(model, **options)
        for module in (model, *chosen):
            # Sums, as `sum_gradients` makes them, and without a product that gloo has not.
            sharded: Any = module
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)
        if hasattr(model, "generate"):
            register_fsdp_forward_method(model, "generate")


def find_device(device: str = "auto") -> torch.device:
    """Returns the device of that name, if it exists here.

    Args:
        device: `"cpu"`, `"cuda"` or another name that torch knows; `"auto"` is a GPU where there
            is one.

    Raises:
        ValueError: the device does not exist here.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with warnings.catch_warnings():  # of names that torch will not know much longer
            warnings.simplefilter("ignore")
            found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu or cuda: got {device!r}") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, and torch finds no GPU here")
    try:  # torch knows names of devices that it was not built for, and `meta`, which holds nothing
        torch.zeros(1, device=found).item()
    except Exception:
        raise ValueError(f"device {device!r} cannot be used here: torch finds none") from None
    return found


def choose_precision(config: DeviceConfig, *, progress: bool = False) -> DeviceConfig:
    """Returns the settings with float32 in the place of bfloat16 where the device has none.

    Args:
        config: the settings.
        progress: whether to say so on standard error.

    Raises:
        ValueError: the device does not exist.

    Example:
        >>> choose_precision(DeviceConfig(precision="bfloat16", device="cpu")).precision
        'float32'
    """
    if config.precision != "bfloat16":
        return config
    found = find_device(config.device)
    if found.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return config
    if progress:
        print(f"float32 in the place of bfloat16, which {found.type} lacks here", file=sys.stderr)
    return replace(config, precision="float32")


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Yields while torch computes with so many threads on the CPU; the number is put back.

    Args:
        count: at least 1; None leaves the number as it is.

    Raises:
        ValueError: `count` is below 1.

    Example:
        >>> with use_threads(1):
        ...     torch.get_num_threads()
        1
    """
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1: got {count}")
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


@contextmanager
def start_processes(device: str = "auto", mesh: DeviceMesh | None = None) -> Iterator[Processes]:
    """Yields the processes of this run.

    These are the process group that the caller has made, which stays afterwards; or those that
    torchrun started, whose group is ended; or this process alone.

    Args:
        device: as for `find_device`. Of several processes on a machine each takes the GPU of its
            local rank.
        mesh: how a caller's group is arranged, with a dimension `data`; all in it if None.

    Raises:
        ValueError: the device does not exist here, or is one GPU for several processes.

    Example:
        >>> with start_processes("cpu") as processes:
        ...     processes.rank, processes.count, processes.device.type
        (0, 1, 'cpu')
    """
    found = find_device(device)
    adopted = distributed.is_initialized()
    count = distributed.get_world_size() if adopted else int(os.environ.get("WORLD_SIZE", "1"))
    local_count = int(os.environ.get("LOCAL_WORLD_SIZE", str(count)))
    if found.type == "cuda" and count > 1:
        if found.index is not None and local_count > 1:
            raise ValueError(
                f"device must be cuda where {local_count} processes run on a machine, each on the "
                f"GPU of its local rank: got {device!r}"
            )
        if found.index is None:
            found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    with _current(found):
        if count == 1:
            yield Processes(device=found)
            return
        if not adopted:
            distributed.init_process_group("nccl" if found.type == "cuda" else "gloo")
        try:
            if mesh is None:
                mesh = init_device_mesh(found.type, (count,), mesh_dim_names=("data",))
            yield Processes(
                rank=distributed.get_rank(),
                data_rank=mesh["data"].get_local_rank(),
                count=count,
                device=found,
                mesh=mesh,
            )
        finally:
            if not adopted:
                distributed.destroy_process_group()


@contextmanager
def _current(device: torch.device) -> Iterator[None]:
    """A GPU that has a number is the current one meanwhile: some calls of torch know no other."""
    if device.type != "cuda" or device.index is None:
        yield
        return
    before = torch.cuda.current_device()
    torch.cuda.set_device(device)
    try:
        yield
    finally:
        torch.cuda.set_device(before)


def _refuse_tied(model: nn.Module, blocks: Sequence[nn.Module]) -> None:
    """A weight that a block shares with the rest would be gathered by one and used by the other."""
    owners: dict[int, set[int]] = {}
    names: dict[int, str] = {}
    for index, block in enumerate(blocks):
        for parameter in block.parameters():
            owners.setdefault(id(parameter), set()).add(index)
    inside = {id(module): index for index, b in enumerate(blocks) for module in b.modules()}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(inside.get(id(module), -1))
            names.setdefault(id(parameter), f"{path}.{name}" if path else name)
    for key, found in owners.items():
        if len(found) > 1:
            raise ValueError(
                f"{names.get(key, 'a weight')} is tied to a weight outside of its block: leave "
                "that block out, so that the whole model gathers it"
            )
