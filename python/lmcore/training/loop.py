"""Epochs with validation, a log, the best model, and a state from which a killed run goes on."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from torch import Tensor, distributed

from lmcore._files import write_text
from lmcore._json import read_json
from lmcore.training.checkpoint import load_state, refusing, save_folder, save_state
from lmcore.training.seeding import seed_torch

#: Entries of a recipe that may differ between a run and its continuation. `path`, `format` and
#: `skip_bad_rows` are where the data lie and how they were read; a fingerprint tells what they are.
CHANGEABLE = ("epochs", "threads", "device", "save_seconds", "path", "format", "skip_bad_rows")

_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that share the work of each step; one alone without torchrun.

    Attributes:
        rank: of this process, from 0.
        count: of all processes.
        device: on which this process computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def join(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        """The parts of all processes one after the other.

        Args:
            part: `[sizes[rank], ...]`, of this process, without a graph.
            sizes: the first dimension in each process.
        """
        if self.count == 1:
            return part
        room = part.new_zeros((max(sizes), *part.shape[1:]))
        room[: len(part)] = part
        rooms = [torch.empty_like(room) for _ in sizes]
        distributed.all_gather(rooms, room)
        return torch.cat([other[:size] for other, size in zip(rooms, sizes, strict=True)])

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Adds up the gradients of all processes, in place, in one message."""
        if self.count == 1:
            return
        kept = [p for p in parameters if p.requires_grad]
        for parameter in kept:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.reshape(-1) for p in kept if p.grad is not None])
        distributed.all_reduce(flat)
        pieces = flat.split([p.numel() for p in kept])
        for parameter, piece in zip(kept, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes of a tensor without a graph."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def agree(self, value: Any) -> Any:
        """What the first process has."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, device=self.device)
        return box[0]


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
            place = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu or cuda: got {device!r}") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, and torch finds no GPU here")
    try:  # torch knows names of devices that it was not built for, and `meta`, which holds nothing
        torch.zeros(1, device=place).item()
    except Exception:
        raise ValueError(f"device {device!r} cannot be used here: torch finds none") from None
    return place


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
def start_processes(device: str = "auto") -> Iterator[Processes]:
    """Yields the processes of this run: those that torchrun started, or this one alone.

    Args:
        device: as for `find_device`. Under torchrun each process takes the GPU of its local rank.

    Raises:
        ValueError: the device does not exist here.

    Example:
        >>> with start_processes("cpu") as processes:
        ...     processes.rank, processes.count, processes.device.type
        (0, 1, 'cpu')
    """
    place = find_device(device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(rank=0, count=1, device=place)
        return
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(rank=distributed.get_rank(), count=count, device=place)
    finally:
        distributed.destroy_process_group()


class Run(Protocol):
    """What a system brings to `fit`. Epochs and steps count from 1 and 0."""

    @property
    def steps_per_epoch(self) -> int:
        """How many times `step` is called in an epoch."""

    def step(self, epoch: int, step: int) -> Tensor:
        """Trains on one batch; the loss, without a graph."""

    def end_epoch(self, epoch: int, loss_sum: float) -> dict[str, Any]:
        """Takes note of the sum of an epoch's losses; what the log shall say about the epoch."""

    def validate(self) -> dict[str, float]:
        """Metrics on validation data; empty where there are none."""

    def save_model(self, folder: Path) -> None:
        """Writes the model as it is validated into an empty folder."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, but for the random numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from such a state."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What `fit` did.

    Attributes:
        history: the lines of the log, one dict for each epoch.
        best_epoch: whose model was kept.
        best_value: its validation metric; None without validation data.
        resumed_after: the last epoch of the run that was continued; 0 for a new run.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    best_value: float | None
    resumed_after: int


def fit(
    run: Run,
    folder: str | os.PathLike[str],
    *,
    recipe: Mapping[str, Any],
    epochs: int,
    seed: int,
    metric: str,
    eval_every: int = 1,
    patience: int | None = None,
    save_seconds: float = 60.0,
    resume: bool = True,
    progress: bool = False,
    processes: Processes | None = None,
) -> Fit:
    """Returns the history of a run after its last epoch; its files stand in `folder`.

    The folder gets `log.jsonl` (one line for each epoch), `checkpoint.pt` (the state at the end
    of an epoch) and the model of the epoch that was best in validation. Each file is whole at
    any time, and one process at a time trains into a folder: a second one is refused.

    A run that was killed, started again, goes on from the state and ends with the same weights
    as an unbroken one: torch's generators are set by (seed, epoch).

    Args:
        run: the system's part.
        folder: where the files go; it is made if it does not exist.
        recipe: what the run is made of, for `recipe.json`. A folder that holds another recipe is
            refused; only the entries `CHANGEABLE` may differ.
        epochs: when to end.
        seed: of torch's generators.
        metric: which validation metric is best when it is highest.
        eval_every: epochs between validations; the last epoch is always validated.
        patience: end after so many validations without a better one; None for no such end.
        save_seconds: the state is saved at the end of the first epoch after so much time, and of
            the last epoch; 0 saves it after each.
        resume: whether to go on from the folder's state; otherwise the run starts anew, and what
            another run left in its place is removed first.
        progress: whether to show a bar and a line for each validation on standard error.
        processes: those that share the work; this one alone if None.

    Raises:
        FileExistsError: the folder holds a run of another recipe or a model of no known run, or
            another process trains into it.
        FloatingPointError: a loss is not finite, or a metric is NaN.
        OSError: a file cannot be written.
        ValueError: validation has no such metric, a number is out of its range, or the run would
            end before the epoch whose model a killed run left.

    Example:
        >>> import tempfile
        >>> class Nothing:
        ...     steps_per_epoch = 1
        ...     def step(self, epoch, step): return torch.tensor(1 / epoch)
        ...     def end_epoch(self, epoch, loss_sum): return {}
        ...     def validate(self): return {"accuracy": 1.0}
        ...     def save_model(self, folder): folder.joinpath("model").touch()
        ...     def state_dict(self): return {}
        ...     def load_state_dict(self, state): pass
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fit(Nothing(), folder, recipe={}, epochs=2, seed=0, metric="accuracy").best_epoch
        1
    """
    for name, value in (("epochs", epochs), ("eval_every", eval_every), ("patience", patience)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}")
    processes = processes or Processes(0, 1, torch.device("cpu"))
    target = Path(folder)
    history: list[dict[str, Any]] = []
    best_epoch, best_value, waited = 0, None, 0
    with ExitStack() as held:
        state = _open_folder(target, recipe, run, epochs, resume, processes, held)
        if state is not None:
            with refusing(target / "checkpoint.pt"):
                run.load_state_dict(state["run"])
            history, waited = state["history"], state["waited"]
            best_epoch, best_value = state["best_epoch"], state["best_value"]
            if processes.is_first:  # the log may be ahead of the state
                _write_log(target, history)
        resumed_after = len(history)
        saved = time.monotonic()
        for epoch in range(resumed_after + 1, epochs + 1):
            if patience is not None and waited >= patience:
                break
            started = time.perf_counter()
            seed_torch(seed, epoch, processes.rank)
            loss_sum = _train_epoch(run, epoch, progress and processes.is_first)
            record = {
                "epoch": epoch,
                "step": epoch * run.steps_per_epoch,
                "loss": loss_sum / run.steps_per_epoch,
                **run.end_epoch(epoch, loss_sum),
            }
            trained = time.perf_counter()
            is_best = False
            if epoch % eval_every == 0 or epoch == epochs:
                metrics = processes.agree(run.validate() if processes.is_first else None)
                if metrics and metric not in metrics:
                    known = ", ".join(metrics)
                    raise ValueError(f"validation has no metric {metric!r}; there are {known}")
                value = metrics.get(metric)
                if value is not None and math.isnan(value):
                    raise FloatingPointError(f"{metric} of epoch {epoch} is nan")
                is_best = best_epoch == 0 or value is None or best_value is None
                if is_best or value > best_value:
                    is_best, best_epoch, best_value, waited = True, epoch, value, 0
                else:
                    waited += 1
                record["metrics"] = metrics
            record["best_epoch"] = best_epoch
            record["seconds"] = round(trained - started, 3)
            record["validation_seconds"] = round(time.perf_counter() - trained, 3)
            history.append(record)
            if processes.is_first:
                # In this order no model is newer than the log, or older than the state says.
                _write_log(target, history)
                if is_best:
                    save_folder(target, run.save_model)
                ends = epoch == epochs or (patience is not None and waited >= patience)
                if ends or time.monotonic() - saved >= save_seconds:
                    state = {
                        "run": run.state_dict(),
                        "history": history,
                        "waited": waited,
                        "best_epoch": best_epoch,
                        "best_value": best_value,
                    }
                    save_state(target / "checkpoint.pt", state)
                    saved = time.monotonic()
                if progress and "metrics" in record:
                    _say(record, epochs, metric)
    return Fit(history, best_epoch, best_value, resumed_after)


def _train_epoch(run: Run, epoch: int, progress: bool) -> float:
    from tqdm import tqdm

    steps = range(run.steps_per_epoch)
    total: Tensor | None = None
    with tqdm(steps, f"epoch {epoch}", leave=False, disable=None if progress else True) as bar:
        for step in bar:
            loss = run.step(epoch, step).double()
            # Adding on the device: no step waits for its loss.
            total = loss if total is None else total + loss
    value = 0.0 if total is None else float(total)
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of epoch {epoch} is {value}; a smaller lr may help")
    return value


def _open_folder(
    folder: Path,
    recipe: Mapping[str, Any],
    run: Run,
    epochs: int,
    resume: bool,
    processes: Processes,
    held: ExitStack,
) -> dict[str, Any] | None:
    """Locks and checks or starts the folder of a run; the state to go on from, if there is one."""
    file, checkpoint, log = (folder / n for n in ("recipe.json", "checkpoint.pt", "log.jsonl"))
    problem: Exception | None = None
    if processes.is_first:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(_lock(folder))
            _sweep(folder)
            if resume and file.exists() and (checkpoint.exists() or log.exists()):
                _check_recipe(folder, _read_recipe(file), recipe)
                _check_model(folder, epochs)
            elif resume and checkpoint.exists():
                raise FileExistsError(f"{folder}: holds checkpoint.pt and no recipe.json")
            else:  # a run that finished no epoch has nothing to lose
                models = _find_models(folder, run)
                if resume and models:
                    raise FileExistsError(
                        f"{folder}: holds {models[0].name} of another run; choose another folder, "
                        "or start anew without resume"
                    )
                # The model goes before the new recipe comes, so that it never seems to be its own.
                for path in (checkpoint, log, *models):
                    path.unlink(missing_ok=True)
            write_text(file, json.dumps(recipe, indent=2) + "\n")
        except (OSError, ValueError) as error:
            problem = error
    problem = processes.agree(problem)
    if problem is not None:
        raise problem
    # All go on, or none: a process that does not see the file fails rather than starts anew.
    return _load(checkpoint) if processes.agree(checkpoint.exists()) else None


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Yields while no other process trains into the folder; the system frees what a kill leaves."""
    path = folder / _LOCK
    while True:
        with open(path, "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileExistsError(f"{folder}: another process is training into it") from None
            except OSError as error:  # some network file systems have no locks
                reason = f"{folder}: cannot be locked ({error.strerror}): train once at a time"
                warnings.warn(reason, RuntimeWarning, stacklevel=2)
            # Whoever held it before may have removed it between our two calls.
            if not _is_open(file, path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_open(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Removes what writes of killed runs left; with the lock held, none is being written."""
    for path in folder.glob(".lmcore-*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _find_models(folder: Path, run: Run) -> list[Path]:
    """Files of the folder that have the names of those that the run's model is written to."""
    if {path.name for path in folder.iterdir()} <= {_LOCK, "recipe.json"}:
        return []
    with tempfile.TemporaryDirectory(prefix=".lmcore-", dir=folder) as temporary:
        run.save_model(Path(temporary))
        names = sorted(path.name for path in Path(temporary).iterdir())
    return [folder / name for name in names if (folder / name).exists()]


def _check_model(folder: Path, epochs: int) -> None:
    """Refuses to end before the epoch whose model a killed run left, which would pass for ours."""
    newest, checkpoint = 0, folder / "checkpoint.pt"
    with suppress(OSError, ValueError, TypeError, KeyError):
        lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        newest = max((json.loads(line)["best_epoch"] for line in lines), default=0)
    # Without a state everything is trained anew, and the first model replaces what is there.
    if newest <= epochs or not checkpoint.exists():
        return
    done = len(_load(checkpoint)["history"])
    if newest > done:
        raise ValueError(
            f"{folder}: holds the model of epoch {newest} and the state of epoch {done}: "
            f"epochs must be at least {newest} to go on: got {epochs}"
        )


def _load(checkpoint: Path) -> dict[str, Any]:
    """A state whose entries are what `fit` wrote; those of the run are for the run to check."""
    state = load_state(checkpoint)
    with refusing(checkpoint):
        history, waited, best = state["history"], state["waited"], state["best_epoch"]
        value = state["best_value"]
        if not isinstance(history, list) or not all(
            isinstance(record, dict) and type(record["epoch"]) is int and record["epoch"] == place
            for place, record in enumerate(history, 1)
        ):
            raise ValueError("history must hold a record of each epoch")
        json.dumps(history)  # the log is written from it
        if type(best) is not int or not 0 <= best <= len(history):
            raise ValueError(f"best_epoch must be one of {len(history)}: got {best!r:.100}")
        if type(waited) is not int or waited < 0:
            raise ValueError(f"waited must be a number of validations: got {waited!r:.100}")
        if value is not None and (type(value) not in (int, float) or math.isnan(value)):
            raise ValueError(f"best_value must be a metric: got {value!r:.100}")
        if not isinstance(state["run"], dict):
            raise ValueError(f"run must be a mapping: got {type(state['run']).__name__}")
    return state


def _read_recipe(file: Path) -> Any:
    return read_json(file, "a recipe")


def _check_recipe(folder: Path, old: Any, new: Mapping[str, Any]) -> None:
    before, now = dict(_flatten(old)), dict(_flatten(json.loads(json.dumps(new))))
    for name in [*before, *now]:
        if name.rpartition(".")[2] in CHANGEABLE or before.get(name) == now.get(name):
            continue
        raise FileExistsError(
            f"{folder}: holds another run: {name} is {json.dumps(before.get(name))} there and "
            f"{json.dumps(now.get(name))} here; choose another folder, or start anew without resume"
        )


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _write_log(folder: Path, history: Iterable[Mapping[str, Any]]) -> None:
    write_text(folder / "log.jsonl", "".join(json.dumps(record) + "\n" for record in history))


def _say(record: Mapping[str, Any], epochs: int, metric: str) -> None:
    value = record["metrics"].get(metric)
    shown = "" if value is None else f"  {metric} {value:.4f}  best at epoch {record['best_epoch']}"
    line = f"epoch {record['epoch']}/{epochs}  loss {record['loss']:.4f}{shown}"
    print(f"{line}  {record['seconds']:.1f} s", file=sys.stderr)
