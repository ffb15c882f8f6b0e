"""The loop of every system: steps, validation, a log, the best model, and states to go on from.

A run is a function of its recipe: batches and random numbers depend on (seed, step), so that
whatever moment it is killed at, it goes on from its last state to the same bits.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lmcore._files import naming_errors
from lmcore._manifest import check_manifest
from lmcore.training import checkpoint
from lmcore.training.checkpoint import refusing
from lmcore.training.config import LoopConfig
from lmcore.training.folder import Recipe, RunFolder, hash_log
from lmcore.training.processes import Processes
from lmcore.training.seeding import seed_torch
from lmcore.training.watch import Interrupts, Watch, Window

# Where standard error is no terminal, a line comes at least as often, between two steps.
QUIET_SECONDS = 60


class Run(Protocol):
    """What a system brings to `fit`. Every method is called in every process."""

    def step(self, step: int) -> Mapping[str, Tensor]:
        """Trains on one batch, from step 1 on; what the log shall say of it.

        Scalars without a graph: floating ones are averaged over steps and processes, and none may
        be infinite or NaN; of whole ones the last stands in the log; that of `fit`'s `unit` is
        added up. Micro-batches stay inside of a step.
        """

    def validate(self) -> Mapping[str, float]:
        """Metrics on validation data, the first process's count; empty where there are none."""

    def save_model(self, folder: Path) -> None:
        """Writes the model as it is validated into an empty folder."""

    def state_dict(self) -> Mapping[str, Any]:
        """All that the next step depends on, but for the random numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from such a state."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What `fit` did.

    Attributes:
        steps: that are done, in this and earlier calls.
        best_step: whose model `best` names.
        best_value: its validation metric; None without validation data.
        resumed_after: the step after which this call went on; 0 for a new run.
        history: the lines of the log.
    """

    steps: int
    best_step: int
    best_value: float | None
    resumed_after: int
    history: list[dict[str, Any]]


def fit(
    run: Run,
    folder: str | os.PathLike[str],
    config: LoopConfig,
    *,
    recipe: Recipe,
    processes: Processes | None = None,
    unit: str | None = None,
    resume: bool = True,
    progress: bool = False,
) -> Fit:
    """Returns what a training run came to, whose files stand in a folder.

    A run that was killed, at whatever moment, goes on from its last state; with as many processes
    on the same CPU it ends with the same bits. Ctrl-C saves a state after the step in progress,
    and a second one ends at once.

    Args:
        run: the system's part.
        folder: where recipe, log, states and models go; see `lmcore.training.folder`.
        config: when to validate, log, save and end.
        recipe: what the folder's recipe must be. A folder of another one is refused; only what it
            calls free may differ.
        processes: those that share the work; this one alone if None.
        unit: the name among the values of a step that counts what is worked on, such as
            `tokens`: the log says how many a second.
        resume: whether to go on from the folder's state; otherwise the run starts anew, and what
            another run left in its place is removed first.
        progress: whether to show a bar and a line for each validation on standard error; where
            that is no terminal, a line at least every minute, between two steps.

    Raises:
        FileExistsError: the folder holds another run or files of no known run, or another process
            trains into it.
        FloatingPointError: a value of a step is not finite, or a metric is NaN; the text names
            the step.
        OSError: a file cannot be written.
        ValueError: validation has no such metric, the number of steps is not given or below that
            of the state, or a file of the folder is not what the run wrote.

    Example:
        >>> import tempfile
        >>> class Nothing:
        ...     def step(self, step): return {"loss": torch.tensor(1 / step)}
        ...     def validate(self): return {"accuracy": 1.0}
        ...     def save_model(self, folder): folder.joinpath("model").touch()
        ...     def state_dict(self): return {}
        ...     def load_state_dict(self, state): pass
        >>> config = LoopConfig(steps=2, validate_every_steps=1, metric="accuracy")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fit(Nothing(), folder, config, recipe=Recipe(config={})).best_step
        1
    """
    if config.steps is None:
        raise ValueError("steps must be given: got none")
    processes = processes or Processes()
    if processes.device.type == "cpu":
        recipe = replace(recipe, threads=torch.get_num_threads())
    with ExitStack() as held:
        files = RunFolder(folder)

        def open_folder() -> None:
            held.enter_context(files.lock())
            files.open(recipe, resume=resume)

        processes.first(open_folder)
        files.fingerprint = processes.first(lambda: files.fingerprint)
        if processes.count > 1:
            processes.first(files.share_lock)
            if not processes.is_first:
                held.enter_context(files.lock(shared=True))
            processes.together(lambda: None)
        return _Loop(run, files, config, processes, unit, progress).go(held)


class _Loop:
    """The steps of a run, and where it stands."""

    def __init__(
        self,
        run: Run,
        folder: RunFolder,
        config: LoopConfig,
        processes: Processes,
        unit: str | None,
        progress: bool,
    ) -> None:
        assert config.steps is not None
        self.run, self.folder, self.config = run, folder, config
        self.processes = processes
        self.board: Callable[[Mapping[str, Any]], None] | None = None
        self.steps = config.steps
        self.progress = progress and processes.is_first
        self.window = Window(processes, unit)
        self.history: list[dict[str, Any]] = []
        self.best: tuple[int, float | None] = (0, None)
        self.waited = 0
        # Of a validation at the end that is not on the schedule: a longer run has none there.
        self.end: dict[str, Any] | None = None
        self._log_size, self._log_hash = 0, hash_log(b"")
        self._saved: tuple[int, bool] | None = None
        # Models that each kept state names.
        self._named: dict[int, list[int]] = {}

    def go(self, held: ExitStack) -> Fit:
        """Trains to the end; what is opened is closed with `held`."""
        from tqdm import tqdm

        start, closed = self._resume()
        done = start
        self._open_board(held, done)
        self.watch = Watch(self.processes, self.config.save_every_seconds)
        with Interrupts() as self.interrupts:
            if not closed:
                self._close(done)
            elif done == self.steps and self.end is None and not self._is_scheduled(done):
                self._end(done)
                self._save(done, closed=True)
            hidden = None if self.progress else True
            with tqdm(initial=done, total=self.steps, leave=False, disable=hidden) as bar:
                self.speaks = self.progress and bar.disable  # there is no terminal
                self.spoken = time.monotonic()
                while done < self.steps and not self._out_of_patience():
                    done += 1
                    self._step(done)
                    bar.update()
        best_step, best_value = self.end["best"] if self.end else self.best
        return Fit(done, best_step, best_value, start, self.history)

    def _step(self, step: int) -> None:
        started = time.perf_counter()
        seed_torch(self.config.seed, step, self.processes.data_rank)
        values = self.run.step(step)
        self.window.add(values)
        self.watch.add(step, values)
        self.window.seconds += time.perf_counter() - started
        if self.speaks and time.monotonic() - self.spoken >= QUIET_SECONDS:
            loss = {"loss": float(values["loss"])} if "loss" in values else {}
            self._say({"step": step, **loss})
        is_late = False
        if self.watch.is_due(step) or self._is_due(step):
            is_late, interrupted = self.watch.look(step, self.interrupts.count > 0)
            if interrupted:
                self._save(step, closed=not self._is_due(step))
                self._answer()
        closed = self._close(step)
        if is_late:
            self._save(step, closed=closed)
        if self.interrupts.count and self.processes.count == 1:
            self._save(step, closed=closed)
            self._answer()

    def _answer(self) -> None:
        self.interrupts.answer()
        if self.processes.count > 1:  # it came to another one, and none goes on alone
            raise KeyboardInterrupt

    def _is_due(self, step: int) -> bool:
        return step == self.steps or self._is_scheduled(step) or self._is_logged(step)

    def _is_scheduled(self, step: int) -> bool:
        every = self.config.validate_every_steps
        return bool(every and step % every == 0)

    def _is_logged(self, step: int) -> bool:
        every = self.config.log_every_steps
        return bool(every and step % every == 0)

    def _out_of_patience(self) -> bool:
        return self.config.patience is not None and self.waited >= self.config.patience

    def _close(self, step: int) -> bool:
        """What is due when a step is done: a line of the log, validation, model, and at last state.

        Whether a longer run would have written the same: it has a line without the validation
        that is due at the end alone, and writes it when it goes on.
        Ctrl-C within a validation saves what was trained; the validation comes when it goes on.
        Several processes do not: one would wait for the others.
        """
        scheduled = self._is_scheduled(step)
        at_end = step == self.steps and not scheduled
        try:
            if at_end:
                self._end(step)
            elif self._is_due(step):
                self._log(step, validate=scheduled)
        except KeyboardInterrupt:
            if self.processes.count == 1:
                self._save(step, closed=False)
            raise
        closed = not (at_end and self._is_logged(step))
        if step == self.steps or self._out_of_patience():
            self._save(step, closed=closed)
        return closed

    def _log(self, step: int, *, validate: bool) -> None:
        record: dict[str, Any] = {"step": step, **self.window.read()}
        best, waited = self.best, self.waited
        if validate:
            best, is_best = self._validate(step, record, best)
            waited = 0 if is_best else waited + 1
        record["best_step"] = best[0]
        line = self._append(record)
        self.best, self.waited = best, waited
        self._log_size += len(line)
        self._log_hash.update(line)
        self.window.clear()

    def _end(self, step: int) -> None:
        record: dict[str, Any] = {"step": step, **self.window.read()}
        best, _ = self._validate(step, record, self.best)
        record["best_step"] = best[0]
        self._append(record)
        self.end = {"record": record, "best": list(best)}

    def _append(self, record: dict[str, Any]) -> bytes:
        line = self.processes.first(lambda: self.folder.append(record))
        self.history.append(record)
        if self.board is not None:
            self.board(record)
        if self.progress and "metrics" in record:
            self._say(record)
        return line

    def _say(self, record: Mapping[str, Any]) -> None:
        _say(record, self.steps, self.config.metric)
        self.spoken = time.monotonic()

    def _validate(
        self, step: int, record: dict[str, Any], best: tuple[int, float | None]
    ) -> tuple[tuple[int, float | None], bool]:
        """Adds metrics to the record; the best step and value now, and whether it is this one."""
        started = time.perf_counter()
        config, processes = self.config, self.processes
        with self.interrupts.at_once():
            metrics = processes.agree(processes.together(lambda: dict(self.run.validate())))
        record["metrics"] = metrics
        record["validation_seconds"] = round(time.perf_counter() - started, 3)
        if metrics and config.metric not in metrics:
            known = ", ".join(metrics)
            raise ValueError(f"validation has no metric {config.metric!r}; there are {known}")
        value = metrics.get(config.metric)
        if value is not None and math.isnan(value):
            raise FloatingPointError(f"{config.metric} of step {step} is nan")
        old = best[1]
        sign = 1 if config.metric_mode == "max" else -1
        if best[0] and value is not None and old is not None and sign * value <= sign * old:
            return best, False
        self._put("models", step, self.run.save_model)
        processes.first(lambda: self.folder.point(step))
        return (step, value), True

    def _save(self, step: int, *, closed: bool) -> None:
        """Writes a state, unless that of this step is there."""
        if (step, closed) == self._saved:
            return
        best_step, best_value = self.best
        own = {
            "step": step,
            "closed": closed,
            "best_step": best_step,
            "best_value": best_value,
            "waited": self.waited,
            "log_size": self._log_size,
            "log_digest": self._log_hash.hexdigest(),
            "window": self.window.state_dict(),
            "end": self.end,
        }
        state = {"loop": own, "run": self.run.state_dict()}
        models = sorted({best_step, self.end["best"][0] if self.end else best_step} - {0})
        self._put(
            "states",
            step,
            lambda folder: checkpoint.save(folder, state, self.processes),
            models=models,
        )
        self._saved = step, closed
        self._named[step] = models
        self.processes.first(self._prune)
        self.watch.saved()

    def _prune(self) -> None:
        kept = sorted(self._named)[-self.config.keep_states :]
        self._named = {step: self._named[step] for step in kept}
        models = {model for step in kept for model in self._named[step]}
        self.folder.prune(kept, models | {self.best[0]})

    def _put(self, kind: str, step: int, write: Callable[[Path], object], **more: Any) -> None:
        """Writes a state or a model, whose files come to be together."""
        temporary: Path = self.processes.first(lambda: self.folder.begin(kind))
        try:
            with naming_errors(self.folder.find(kind, step), temporary):
                self.processes.together(lambda: write(temporary))
                self.processes.first(lambda: self.folder.finish(temporary, kind, step, **more))
        except BaseException:
            if self.processes.is_first:
                self.folder.drop(temporary)
            raise

    def _resume(self) -> tuple[int, bool]:
        """Goes on from the newest state; the steps that are done, and whether all is written."""
        folder, processes = self.folder, self.processes
        states: list[int] = processes.first(lambda: folder.states)
        if not states:
            # Models without a state are of steps that are trained anew.
            processes.first(folder.forget_progress)
            return 0, True
        saved = folder.find("states", states[-1])
        file = saved / "state.pt"

        def check() -> dict[int, list[int]]:
            named = {}
            for step in states:
                manifest = check_manifest(folder.find("states", step), folder.fingerprint)
                named[step] = _check_models(manifest)
            return named

        self._named = processes.first(check)
        state = processes.together(
            lambda: checkpoint.load(saved, processes, lambda: {"run": self.run.state_dict()})
        )
        with refusing(file):
            own = _check_own(state["loop"], states[-1])
            self.window.load_state_dict(own["window"])
            run_state = state["run"]
            if not isinstance(run_state, dict):
                raise ValueError(f"run must be a mapping: got {type(run_state).__name__}")
        if own["step"] > self.steps:
            raise ValueError(
                f"{folder.path}: its state is of step {own['step']}: steps must be at least that "
                f"to go on: got {self.steps}"
            )
        with refusing(file):
            processes.together(lambda: self.run.load_state_dict(run_state))
        self.best, self.waited = (own["best_step"], own["best_value"]), own["waited"]
        if own["step"] == self.steps:
            self.end = own["end"]
        content = processes.first(lambda: self._take_over(own))
        self.history = [json.loads(line) for line in content.splitlines()]
        self._log_size, self._log_hash = len(content), hash_log(content)
        if self.end is not None:
            self._append(self.end["record"])
        self._saved = own["step"], own["closed"]
        return own["step"], own["closed"] or self.end is not None

    def _open_board(self, held: ExitStack, done: int) -> None:
        if not self.config.tensorboard:
            return
        from lmcore.training.board import open_board

        def open_it() -> None:
            if self.processes.is_first:
                self.board = held.enter_context(open_board(self.folder.path, done))

        self.processes.together(open_it)

    def _take_over(self, own: Mapping[str, Any]) -> bytes:
        """Makes the folder what it was when the state was saved; its log."""
        folder = self.folder
        best = self.end["best"][0] if self.end else own["best_step"]
        for step in {best, own["best_step"]} - {0}:
            check_manifest(folder.find("models", step), folder.fingerprint)
        # All is looked at before anything is removed.
        content = folder.check_log(own["log_size"], own["log_digest"])
        folder.point(best or None)
        folder.prune(self._named, {model for models in self._named.values() for model in models})
        folder.cut_log(len(content))
        return content


def _check_models(manifest: Mapping[str, Any]) -> list[int]:
    models = manifest.get("models")
    if not isinstance(models, list) or not all(type(m) is int and m > 0 for m in models):
        raise ValueError(f"the manifest of the state of step {manifest['step']} names no models")
    return models


def _check_own(own: Any, step: int) -> dict[str, Any]:
    """The loop's part of a state; that of the run is for the run to check."""
    if not isinstance(own, dict):
        raise ValueError("loop must be a mapping")
    if type(own["step"]) is not int or own["step"] != step:
        raise ValueError(f"step must be {step}: got {own['step']!r:.100}")
    if type(own["closed"]) is not bool:
        raise ValueError(f"closed must be a truth value: got {own['closed']!r:.100}")
    _check_best(own["best_step"], own["best_value"], step)
    if type(own["waited"]) is not int or own["waited"] < 0:
        raise ValueError(f"waited must be a number of validations: got {own['waited']!r:.100}")
    if type(own["log_size"]) is not int or own["log_size"] < 0:
        raise ValueError(f"log_size must be a number of bytes: got {own['log_size']!r:.100}")
    if own["end"] is not None:
        best_step, best_value = own["end"]["best"]
        _check_best(best_step, best_value, step)
        if not isinstance(own["end"]["record"], dict):
            raise ValueError("end must hold a record")
    return own


def _check_best(best: Any, value: Any, step: int) -> None:
    if type(best) is not int or not 0 <= best <= step:
        raise ValueError(f"best_step must be one of {step} steps: got {best!r:.100}")
    if value is not None and (type(value) not in (int, float) or math.isnan(value)):
        raise ValueError(f"best_value must be a metric: got {value!r:.100}")


def _say(record: Mapping[str, Any], steps: int, metric: str) -> None:
    value = record.get("metrics", {}).get(metric)
    # That of the steps since the last line is a loss, too: which one is which has to be told.
    name = f"validation {metric}" if metric.startswith("loss") else metric
    shown = "" if value is None else f"  {name} {value:.4f}  best at step {record['best_step']}"
    loss = f"  loss {record['loss']:.4f}" if "loss" in record else ""
    seconds = f"  {record['seconds']:.1f} s" if "seconds" in record else ""
    line = f"step {record['step']}/{steps}{loss}{shown}{seconds}"
    print(line, file=sys.stderr, flush=True)
