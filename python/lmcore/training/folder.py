"""The folder of a run: recipe, log, states and models, each whole at any moment.

    recipe.json      settings and data; its fingerprint stands in every state and model
    log.jsonl        one JSON object for each line of the log
    states/step-N/   what a run goes on from after N steps
    models/step-N/   the model after N steps
    best             a link to the best of the models

States and models are written under another name and renamed, and each has a `manifest.json` with
the digest of every file in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmcore._files import FolderLock, find_output, naming_errors, write_text
from lmcore._manifest import STEP_NAME, read_recipe, write_manifest
from lmcore.training.config import config_to_dict, fill_defaults

#: What names begin with that are not whole yet, or shall go.
TEMPORARY = ".lmcore-"
#: What a run writes into its folder.
RUN_NAMES = ("best", "log.jsonl", "models", "recipe.json", "states", "tensorboard")


@dataclass(kw_only=True, slots=True, frozen=True)
class DataRecord:
    """What a recipe says of its data.

    Attributes:
        path: where they lay; None if they came from no file.
        options: how they were read.
        sizes: how much there is.
        fingerprint: tells them apart from other data.
    """

    path: str | None
    fingerprint: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        taken = {"path", "fingerprint", *self.sizes} & set(self.options)
        if taken:
            raise ValueError(f"options must not hold {min(taken)!r}, which is written anyway")

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it in one mapping, for JSON."""
        own = {"path": self.path, **self.options, **self.sizes}
        return {**own, "fingerprint": self.fingerprint}


@dataclass(kw_only=True, slots=True, frozen=True)
class Recipe:
    """What makes a run the run that it is.

    Attributes:
        config: a dataclass, or a mapping of plain values.
        data: what it is trained on.
        free: names that may change when a run goes on, as they stand in `recipe.json`, from the
            first part to the last: `config.loop.steps`.
        threads: with which torch computes on a CPU, whose sums depend on it.
    """

    config: Any
    data: DataRecord | None = None
    free: tuple[str, ...] = ()
    threads: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns what `recipe.json` holds."""
        config = dict(self.config) if isinstance(self.config, Mapping) else None
        return {
            "fingerprint": self.fingerprint,
            "config": config_to_dict(self.config) if config is None else config,
            "data": None if self.data is None else self.data.to_dict(),
            "threads": self.threads,
        }

    @property
    def fingerprint(self) -> str:
        """Tells recipes apart; what is free does not count."""
        config = self.config if isinstance(self.config, Mapping) else config_to_dict(self.config)
        data = None if self.data is None else self.data.to_dict()
        whole = json.loads(json.dumps({"config": config, "data": data, "threads": self.threads}))
        kept = sorted((n, json.dumps(v)) for n, v in _flatten(whole) if n not in self.free)
        return hashlib.blake2b(json.dumps(kept).encode(), digest_size=16).hexdigest()

    def check(self, folder: Path, old: Any) -> None:
        """Returns nothing if a run of the old recipe can go on with this one.

        Settings that were not there when the old one was written count as their defaults.

        Args:
            folder: of the run, for the error.
            old: what its `recipe.json` holds.

        Raises:
            FileExistsError: it is another run.
        """
        if isinstance(old.get("config"), dict) and not isinstance(self.config, Mapping):
            old = {**old, "config": fill_defaults(self.config, old["config"])}
        old, own = (json.loads(json.dumps(recipe)) for recipe in (old, self.to_dict()))
        before, now = dict(_flatten(old)), dict(_flatten(own))
        for name in [*before, *now]:
            if name in (*self.free, "fingerprint") or (
                before.get(name) == now.get(name) and type(before.get(name)) is type(now.get(name))
            ):
                continue
            raise FileExistsError(
                f"{folder}: holds another run: {name} is {json.dumps(before.get(name))} there and "
                f"{json.dumps(now.get(name))} here; choose another folder, or start anew without "
                "resume"
            )


def take_recipe(file: Path, recipe: Recipe, *, resume: bool) -> None:
    """Checks that a folder was made by no other recipe, and notes this one in it.

    Args:
        file: in the folder, which exists.
        recipe: what is made there.
        resume: whether to go on from what is there; otherwise any other recipe gives way.

    Raises:
        FileExistsError: the folder was made by another recipe.
        OSError: the file cannot be read or written.
        ValueError: the file holds no recipe.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     take_recipe(Path(path, "chain.json"), Recipe(config={"lr": 1}), resume=True)
        ...     read_recipe(Path(path, "chain.json"))["config"]
        {'lr': 1}
    """
    if resume and file.is_file():
        recipe.check(file.parent, read_recipe(file))
    write_text(file, json.dumps(recipe.to_dict(), ensure_ascii=False, indent=2) + "\n")


class RunFolder:
    """The files of a run; what one process does with them.

    Args:
        path: the folder; `open` makes it if it does not exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     folder = RunFolder(path)
        ...     folder.open(Recipe(config={"lr": 1}), resume=True)
        ...     folder.states
        []
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.json"
        self.log = self.path / "log.jsonl"
        self.best = self.path / "best"
        self.fingerprint = ""
        self._lock = FolderLock(self.path, doing="training")

    @contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Yields while no other run trains into the folder; the system frees what a kill leaves.

        Args:
            shared: for the other processes of a run whose first one called `share_lock`.

        Raises:
            FileExistsError: another run does.
            OSError: the folder cannot be made.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock.hold(shared=shared):
            yield

    def share_lock(self) -> None:
        """Lets the other processes of this run hold the lock, too.

        Raises:
            FileExistsError: another run took it at this moment.
        """
        self._lock.share()

    def open(self, recipe: Recipe, *, resume: bool) -> None:
        """Checks or starts the folder: afterwards it holds this recipe, and nothing of another.

        Args:
            recipe: of the run.
            resume: whether to go on from what is there; otherwise it is removed first.

        Raises:
            FileExistsError: it holds another run, or files of no known run.
            OSError: a file cannot be written.
            ValueError: `recipe.json` is none.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._sweep()
        held = [name for name in RUN_NAMES if os.path.lexists(self.path / name)]
        content = recipe.to_dict()
        if self.recipe.exists():
            old = read_recipe(self.recipe)
            done = any((self.path / name).exists() for name in ("states", "models"))
            if resume and done:
                recipe.check(self.path, old)
                # States and models bear it, also where this version knows more settings.
                if isinstance(old["fingerprint"], str):
                    content["fingerprint"] = old["fingerprint"]
            else:
                # The model goes before the new recipe comes, so that it never seems to be its own.
                self.forget_models()
                remove(self.path / "states")
                remove(self.path / "tensorboard")
                self.log.unlink(missing_ok=True)
        elif held:
            raise FileExistsError(
                f"{self.path}: holds {held[0]} and no recipe.json of a run; choose another folder"
            )
        self.fingerprint = content["fingerprint"]
        write_text(self.recipe, json.dumps(content, indent=2) + "\n")

    @property
    def states(self) -> list[int]:
        """Steps after which there is a state, in ascending order."""
        return _find_steps(self.path / "states")

    @property
    def models(self) -> list[int]:
        """Steps after which there is a model, in ascending order."""
        return _find_steps(self.path / "models")

    def find(self, kind: str, step: int) -> Path:
        """The folder of a state or a model.

        Args:
            kind: `states` or `models`.
            step: after how many steps.
        """
        return self.path / kind / f"step-{step}"

    def begin(self, kind: str) -> Path:
        """Makes an empty folder that becomes a state or a model with `finish`.

        Args:
            kind: `states` or `models`.
        """
        parent = self.path / kind
        parent.mkdir(exist_ok=True)
        temporary = parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        temporary.mkdir()
        return temporary

    def finish(self, temporary: Path, kind: str, step: int, **more: Any) -> None:
        """Gives a folder that is written its manifest and its name.

        Args:
            temporary: what `begin` returned.
            kind: as there.
            step: after how many steps.
            more: what else the manifest says.

        Raises:
            OSError: a file cannot be written or read.
        """
        write_manifest(temporary, self.fingerprint, step, **more)
        target = self.find(kind, step)
        if target.exists():  # a state that was saved before its last validation
            old = target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
            target.rename(old)
            temporary.rename(target)
            remove(old)
        else:
            temporary.rename(target)

    def point(self, step: int | None) -> None:
        """Makes `best` name the model of a step, or none.

        Args:
            step: whose model; None: there is no best one.
        """
        if step is None:
            remove(self.best)
            return
        if self.best.is_dir() and not self.best.is_symlink():  # a copy of a folder made it one
            remove(self.best)
        point_to(self.best, self.find("models", step))

    def forget_models(self) -> None:
        """Removes all models; first the name of the best one."""
        remove(self.best)
        remove(self.path / "models")

    def prune(self, states: Iterable[int], models: Iterable[int]) -> None:
        """Removes all states and models but these.

        Args:
            states: steps whose states stay.
            models: steps whose models stay.
        """
        for kind, kept in (("states", set(states)), ("models", set(models))):
            for step in _find_steps(self.path / kind):
                if step not in kept:
                    remove(self.find(kind, step))

    def append(self, record: Mapping[str, Any]) -> bytes:
        """Adds a line to the log, and returns its bytes.

        Args:
            record: plain values.

        Raises:
            OSError: it cannot be written.
            ValueError: a number is not finite.
        """
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        with naming_errors(self.log), open(self.log, "ab") as file:
            file.write(line)
        return line

    def check_log(self, size: int, digest: str) -> bytes:
        """Returns the first bytes of the log, if they are those that a state knows.

        Args:
            size: how many.
            digest: theirs, by `hash_log`.

        Raises:
            OSError: it cannot be read.
            ValueError: there are others.
        """
        content = b""
        if size and self.log.exists():
            with naming_errors(self.log), open(self.log, "rb") as file:
                content = file.read(size)
        if len(content) < size or hash_log(content).hexdigest() != digest:
            raise ValueError(f"{self.log}: has changed since the state was saved")
        return content

    def cut_log(self, size: int) -> None:
        """Removes what the log holds behind a number of bytes.

        Args:
            size: bytes that stay.

        Raises:
            OSError: it cannot be written.
        """
        if self.log.exists():
            with naming_errors(self.log), open(self.log, "ab") as file:
                file.truncate(size)

    def forget_progress(self) -> None:
        """Removes models and log, of steps that are trained anew."""
        self.forget_models()
        self.log.unlink(missing_ok=True)

    def drop(self, temporary: Path) -> None:
        """Removes a folder that did not become a state or a model.

        Args:
            temporary: what `begin` returned.
        """
        shutil.rmtree(temporary, ignore_errors=True)

    def _sweep(self) -> None:
        """Removes what writes of killed runs left; with the lock held, none is being written."""
        for parent in (self.path, self.path / "states", self.path / "models"):
            for path in parent.glob(f"{TEMPORARY}*"):
                remove(path)


def point_to(link: Path, target: Path) -> None:
    """Returns nothing, once a link names a file or folder, as seen from its own folder.

    Args:
        link: its place; what stands there and is no folder gives way.
        target: what it names, which need not exist.

    Raises:
        OSError: it cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     point_to(Path(folder, "model"), Path(folder, "1-a", "pruned"))
        ...     str(Path(folder, "model").readlink())
        '1-a/pruned'
    """
    name = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == name:  # noqa: PTH115 - as it is written
        return
    temporary = link.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    temporary.symlink_to(name, target_is_directory=True)
    temporary.replace(link)


def remove(path: Path) -> None:
    """Returns nothing, once a file, a link or a whole folder is gone; a kill leaves no half of one.

    Args:
        path: its place; it need not exist where it is no folder.

    Raises:
        OSError: it cannot be removed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "models").mkdir()
        ...     remove(Path(folder, "models"))
        ...     os.listdir(folder)
        []
    """
    if path.is_dir() and not path.is_symlink():
        if not path.name.startswith(TEMPORARY):
            # Under another name first: what is left by a kill is no half of a model.
            path = path.rename(path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}"))
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def keep_apart(folder: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Returns nothing if no file of a run is one of its inputs, by whatever name or link.

    Args:
        folder: of the run; it need not exist.
        inputs: files and folders that are read; of the folder of a run it is the best model.

    Raises:
        ValueError: a file that the run writes is an input.

    Example:
        >>> keep_apart("runs/a", ["data.txt"])
    """
    given = [one for path in inputs for one in (path, Path(path, "best"))]
    for name in RUN_NAMES:
        path = Path(folder, name)
        if path.is_file():
            find_output(path, given)
        for one in given if path.is_dir() else []:
            inside = Path(os.path.realpath(one))
            if Path(os.path.realpath(path)) in inside.parents:
                raise ValueError(f"{inside}: the output is an input too")


def hash_log(content: bytes) -> hashlib.blake2b:
    """Returns the hash of the first bytes of a log, which goes on with `update`.

    Args:
        content: the bytes.

    Example:
        >>> len(hash_log(b"").hexdigest())
        32
    """
    return hashlib.blake2b(content, digest_size=16)


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _find_steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    found = (STEP_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)
