"""What a model's estimates are worth at each timestep, and the files that say so.

A profile is measured by `lmcore.diffusion.make_profile`; this module holds, writes and reads it,
and needs no torch.

Source: Bridge-Gap Diffusion (arXiv 2305.04465), the preliminary study.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from lmcore._files import write_text
from lmcore._json import read_json
from lmcore.ops import schedule

VERSION = 1
"""Of the files."""

_FORMAT = "lmcore.diffusion.profile"
_WHAT = "a profile of text diffusion"
_MOST_ROWS = 2**40
_LARGEST = 1e300


@dataclass(kw_only=True, slots=True, frozen=True)
class Curve:
    """What was measured at some timesteps; means over the rows, of target positions alone.

    Distances and errors are mean squares over the positions of a target, its padding included, and
    the sizes of a latent.
    """

    steps: int | None
    """N, of the chain whose latents the network was shown; None: texts with noise."""
    timesteps: tuple[int, ...]
    """`[N]`, in ascending order, of the training's T."""
    loss: tuple[float, ...]
    """`[N]`, error of the estimates against the word embeddings."""
    distance: tuple[float, ...]
    """`[N]`, between the estimate and that at the neighbour by noise, with noise of its own."""
    travel: tuple[float, ...] | None
    """`[N]`, of a chain: between the estimate and that of the step before, which has more noise;
    0 at the first step. None for texts with noise."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Profile:
    """The errors and distances of a model's estimates, for noised texts and in its own chains."""

    total: int
    """T, of the model's training."""
    noise_schedule: str
    """Of the model's training, one of `lmcore.ops.schedule.SCHEDULES`."""
    model: str
    """What tells the weights from others, in hexadecimal digits."""
    data: str
    """What tells the rows from others, in hexadecimal digits."""
    rows: int
    """Over which all is averaged."""
    length: int
    """Positions of a row."""
    seed: int
    """Of the noise."""
    tolerance: float
    """How far apart the noise of neighbours may be."""
    forward: Curve
    """With noise added to the texts, as in training."""
    chains: tuple[Curve, ...]
    """In the model's own chains, the longest first; the timesteps of each are some of `forward`."""

    @property
    def process(self) -> tuple[int, str]:
        """T and the noise schedule: those of two profiles that can be compared are the same."""
        return self.total, self.noise_schedule


def find_gap(profile: Profile, chain: Curve) -> list[float]:
    """Returns by how much errors in a chain are above those for noised texts at its timesteps.

    Args:
        profile: that the chain is of.
        chain: one of its chains.

    Raises:
        ValueError: the chain has a timestep at which noised texts were not measured.

    Example:
        >>> forward = Curve(steps=None, timesteps=(0, 9), loss=(1.0, 2.0), distance=(0.0, 0.0),
        ...                 travel=None)
        >>> chain = Curve(steps=1, timesteps=(9,), loss=(2.5,), distance=(0.0,), travel=(0.0,))
        >>> find_gap(Profile(
        ...     total=10, noise_schedule="sqrt", model="", data="", rows=1, length=8, seed=0,
        ...     tolerance=0.05, forward=forward, chains=(chain,)), chain)
        [0.5]
    """
    known = dict(zip(profile.forward.timesteps, profile.forward.loss, strict=True))
    missing = [step for step in chain.timesteps if step not in known]
    if missing:
        raise ValueError(f"timestep {missing[0]} was measured in a chain alone")
    return [own - known[step] for step, own in zip(chain.timesteps, chain.loss, strict=True)]


def check_total(profile: Profile, total: int, name: str = "the profile") -> None:
    """Checks that a profile is of a model with as many timesteps.

    Args:
        profile: any.
        total: T.
        name: of the profile, for the error.

    Raises:
        ValueError: it is of another T.

    Example:
        >>> curve = Curve(steps=None, timesteps=(0,), loss=(0.0,), distance=(0.0,), travel=None)
        >>> check_total(Profile(
        ...     total=10, noise_schedule="sqrt", model="", data="", rows=1, length=8, seed=0,
        ...     tolerance=0.05, forward=curve, chains=()), 10)
    """
    if profile.total != total:
        raise ValueError(
            f"{name} must be of a model with {total} timesteps: it is of {profile.total}"
        )


def write_profile(
    profile: Profile,
    path: str | os.PathLike[str],
    inputs: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Writes a profile as JSON; the same profile gives the same bytes.

    Args:
        profile: any.
        path: the file; its folder must exist.
        inputs: files that it must not be.

    Raises:
        OSError: the file cannot be written.
        ValueError: the file is an input, or has no name.

    Example:
        >>> import tempfile
        >>> curve = Curve(steps=None, timesteps=(0,), loss=(0.0,), distance=(0.0,), travel=None)
        >>> profile = Profile(
        ...     total=10, noise_schedule="sqrt", model="", data="", rows=1, length=8, seed=0,
        ...     tolerance=0.05, forward=curve, chains=())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_profile(profile, f"{folder}/profile.json")
        ...     read_profile(f"{folder}/profile.json") == profile
        True
    """
    content = {"format": _FORMAT, "version": VERSION, **asdict(profile)}
    write_text(path, json.dumps(content, allow_nan=False) + "\n", inputs)


def read_profile(path: str | os.PathLike[str]) -> Profile:
    """Returns the profile of a file, as `write_profile` writes it.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no profile, one of another version, or one that says two things; the
            text names the file.

    Example:
        >>> read_profile("nowhere.json")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.json'
    """
    content = read_json(path, _WHAT)
    try:
        return _read(content)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: not {_WHAT}: {error}") from None


def _read(content: Any) -> Profile:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"format must be {_FORMAT}")
    if content.get("version") != VERSION or type(content["version"]) is not int:
        raise ValueError(f"version must be {VERSION}: got {content.get('version')!r:.40}")
    values = {name: value for name, value in content.items() if name not in ("format", "version")}
    _check_names(values, Profile)
    total = _read_whole(values, "total", 1, schedule.MOST_STEPS)
    name = values["noise_schedule"]
    if not isinstance(name, str) or name not in schedule.SCHEDULES:
        raise ValueError(f"noise_schedule must be one of {', '.join(schedule.SCHEDULES)}: "
                         f"got {name!r:.40}")  # fmt: skip
    for key in ("model", "data"):
        if not isinstance(values[key], str):
            raise ValueError(f"{key} must be a text")
    if not isinstance(values["chains"], list):
        raise ValueError("chains must be a list")
    forward = _read_curve(values["forward"], total, "forward", is_chain=False)
    chains = [
        _read_curve(chain, total, f"chains[{k}]", is_chain=True)
        for k, chain in enumerate(values["chains"])
    ]
    for k, chain in enumerate(chains):
        if not set(chain.timesteps) <= set(forward.timesteps):
            raise ValueError(f"chains[{k}] must have timesteps of forward alone")
    return Profile(
        total=total, noise_schedule=name, model=values["model"], data=values["data"],
        rows=_read_whole(values, "rows", 1, _MOST_ROWS),
        length=_read_whole(values, "length", 1, _MOST_ROWS),
        seed=_read_whole(values, "seed", 0, 2**64 - 1),
        tolerance=_read_number(values["tolerance"], "tolerance"),
        forward=forward, chains=tuple(chains),
    )  # fmt: skip


def _read_curve(values: Any, total: int, name: str, *, is_chain: bool) -> Curve:
    if not isinstance(values, dict):
        raise ValueError(f"{name} must be an object")
    _check_names(values, Curve, f"{name}.")
    timesteps = values["timesteps"]
    if not isinstance(timesteps, list) or not timesteps:
        raise ValueError(f"{name}.timesteps must be a list of at least one")
    before = -1
    for step in timesteps:
        if type(step) is not int or not before < step < total:
            raise ValueError(
                f"{name}.timesteps must ascend from at least 0 to below {total}: got {step!r:.40}"
            )
        before = step
    numbers = {
        key: _read_numbers(values[key], f"{name}.{key}", len(timesteps))
        for key in ("loss", "distance", *(["travel"] if is_chain else []))
    }
    if not is_chain:
        for key in ("steps", "travel"):
            if values[key] is not None:
                raise ValueError(f"{name}.{key} must be null")
    steps = _read_whole(values, "steps", len(timesteps), total, name) if is_chain else None
    return Curve(
        steps=steps, timesteps=tuple(timesteps), loss=numbers["loss"],
        distance=numbers["distance"], travel=numbers.get("travel"),
    )  # fmt: skip


def _check_names(values: dict[str, Any], kind: type[Any], prefix: str = "") -> None:
    known = {field.name for field in fields(kind)}
    missing, unknown = sorted(known - set(values)), sorted(set(values) - known)
    if missing:
        raise ValueError(f"{prefix}{missing[0]} is missing")
    if unknown:
        raise ValueError(f"{prefix}{unknown[0]!r:.60} is unknown")


def _read_whole(values: dict[str, Any], key: str, low: int, high: int, name: str = "") -> int:
    value = values[key]
    if type(value) is not int or not low <= value <= high:
        full = f"{name}.{key}" if name else key
        raise ValueError(f"{full} must be a whole number from {low} to {high}: got {value!r:.40}")
    return value


def _read_numbers(values: Any, name: str, count: int) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"{name} must be a list of {count} numbers")
    return tuple(_read_number(value, f"{name}[{k}]") for k, value in enumerate(values))


def _read_number(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not 0 <= value <= _LARGEST:
        raise ValueError(f"{name} must be a number that is at least 0: got {value!r:.40}")
    return float(value)
