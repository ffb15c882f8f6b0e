"""What a model's estimates are worth at each timestep, and where sampling should spend its steps.

A profile is measured by `lmcore.diffusion.make_profile`; this module holds, keeps and reads it,
and needs no torch.

Source: Bridge-Gap Diffusion (arXiv 2305.04465), the preliminary study and Adaptive Decay Sampling.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from lmcore._files import write_text
from lmcore._json import read_json
from lmcore.ops import schedule

VERSION = 1
"""Of the files."""
TOTAL = 2000
"""T where nothing else says it: the paper's."""
By: TypeAlias = Literal["distance", "travel", "gap"]
"""What makes a timestep worth a step of sampling: see `find_proportions`."""

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


def find_proportions(profile: Profile, sections: int = 3, by: By = "distance") -> list[float]:
    """Returns which share of a few steps each section of the timesteps should get.

    Sections are those of `lmcore.ops.schedule.adaptive_timesteps`. The share of a section is that
    of the sum over its timesteps of what `by` names, which runs in straight lines between the
    timesteps that were measured, and flat beyond them:

    | `by` | a timestep is worth |
    | --- | --- |
    | `distance` | how far estimates of noised texts are from those at the neighbour by noise |
    | `travel` | how far estimates of the longest chain move there, for each timestep |
    | `gap` | how much larger errors are in the longest chain than for noised texts; at least 0 |

    The authors' three constants are not derived so: nothing says where they come from.

    Args:
        profile: of a model.
        sections: of equal length, from 1 to T; each must hold a timestep that was measured.
        by: the rule.

    Returns:
        `[sections]`, from the least noise to the most; each at least 0, and 1 in sum.

    Raises:
        TypeError: `sections` is no int.
        ValueError: there is no such rule, T cannot be divided so or was not measured in each
            section, the profile has no chain, or all is 0.

    Example:
        >>> forward = Curve(steps=None, timesteps=(0, 5, 9), loss=(0.0, 0.0, 0.0),
        ...                 distance=(1.0, 1.0, 1.0), travel=None)
        >>> find_proportions(Profile(
        ...     total=10, noise_schedule="sqrt", model="", data="", rows=1, length=8, seed=0,
        ...     tolerance=0.05, forward=forward, chains=()), 2)
        [0.5, 0.5]
    """
    if type(sections) is not int:
        raise TypeError(f"sections must be an int: got {type(sections).__name__}")
    if not 1 <= sections <= profile.total:
        raise ValueError(
            f"sections must be from 1 to the {profile.total} timesteps: got {sections}"
        )
    curve, worth = _find_worth(profile, by)
    starts = _cut(profile.total, sections)
    held = np.searchsorted(starts, curve.timesteps, side="right") - 1
    empty = np.flatnonzero(np.bincount(held, minlength=sections) == 0)
    if len(empty):
        raise ValueError(
            f"section {empty[0]} of {sections} holds none of the {len(curve.timesteps)} timesteps "
            f"that were measured: measure more of them"
        )
    spread = np.interp(np.arange(profile.total), curve.timesteps, worth / max(worth.max(), 1e-300))
    sums = np.add.reduceat(spread, starts)
    if not sums.sum() > 0:
        raise ValueError(f"the {by} of the profile is 0 everywhere: it gives no proportions")
    return [float(share) for share in sums / sums.sum()]


def summarize_sections(profile: Profile, sections: int = 3) -> list[dict[str, float | None]]:
    """Returns for each section the means of what was measured in it, under names for a table.

    Args:
        profile: of a model.
        sections: of equal length, from 1 to T.

    Returns:
        For each section its `first` and `last` timestep, the `error` and `distance` of noised
        texts, and of each chain of N steps `error N` and `gap N`; None where none of its timesteps
        was measured.

    Raises:
        ValueError: T cannot be divided so.

    Example:
        >>> curve = Curve(steps=None, timesteps=(0, 9), loss=(0.0, 2.0), distance=(0.0, 1.0),
        ...               travel=None)
        >>> summarize_sections(Profile(
        ...     total=10, noise_schedule="sqrt", model="", data="", rows=1, length=8, seed=0,
        ...     tolerance=0.05, forward=curve, chains=()), 1)
        [{'first': 0, 'last': 9, 'error': 1.0, 'distance': 0.5}]
    """
    if not 1 <= sections <= profile.total:
        raise ValueError(
            f"sections must be from 1 to the {profile.total} timesteps: got {sections}"
        )
    bounds = [*_cut(profile.total, sections).tolist(), profile.total]
    found: list[dict[str, float | None]] = []
    for first, end in pairwise(bounds):

        def average(curve: Curve, values: Sequence[float]) -> float | None:
            places = slice(*np.searchsorted(curve.timesteps, [first, end]))  # noqa: B023
            return float(np.mean(values[places])) if values[places] else None

        own = profile.forward
        row: dict[str, float | None] = {"first": first, "last": end - 1}
        row |= {"error": average(own, own.loss), "distance": average(own, own.distance)}
        for chain in profile.chains:
            row[f"error {chain.steps}"] = average(chain, chain.loss)
            row[f"gap {chain.steps}"] = average(chain, find_gap(profile, chain))
        found.append(row)
    return found


def adaptive_timesteps(
    profile: Profile | str | os.PathLike[str] | Sequence[float] | None,
    steps: int,
    *,
    total: int | None = None,
    sections: int = 3,
    by: By = "distance",
) -> list[int]:
    """Returns timesteps for sampling, the noisiest first, as schedulers of diffusers take them.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), Adaptive Decay Sampling.

    Args:
        profile: of the model, or its file, of which proportions are derived; or the proportions
            themselves, as for `lmcore.ops.schedule.adaptive_timesteps`; None: the authors' three.
        steps: N, from 1 to T.
        total: T; that of the profile if None, and the paper's 2,000 where there is none.
        sections: of the proportions that are derived.
        by: the rule by which they are; see `find_proportions`.

    Raises:
        OSError: the file cannot be read.
        TypeError: a number is of another type.
        ValueError: the file holds no profile, the profile is of another T or gives no such
            proportions, there are more steps than T, or a section has more steps than timesteps.

    Example:
        >>> adaptive_timesteps(None, 5), adaptive_timesteps(None, 4, total=1000)
        ([1999, 1334, 1000, 667, 0], [999, 667, 334, 0])
        >>> adaptive_timesteps([0.25, 0.75], 4, total=1000)
        [999, 750, 500, 0]
    """
    if isinstance(profile, str | os.PathLike):
        profile = read_profile(profile)
    if isinstance(profile, Profile):
        check_total(profile, profile.total if total is None else total)
        shares = find_proportions(profile, sections, by)
        return schedule.adaptive_timesteps(profile.total, steps, shares)
    proportions = schedule.ADAPTIVE_DECAY if profile is None else profile
    return schedule.adaptive_timesteps(TOTAL if total is None else total, steps, proportions)


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


def _cut(total: int, sections: int) -> NDArray[np.int64]:
    """The first timestep of each section: the first sections are one longer."""
    size, longer = divmod(total, sections)
    numbers = np.arange(sections)
    starts: NDArray[np.int64] = numbers * size + np.minimum(numbers, longer)
    return starts


def _find_worth(profile: Profile, by: str) -> tuple[Curve, NDArray[np.float64]]:
    """A curve, and what each of its timesteps is worth."""
    if by not in get_args(By):
        raise ValueError(f"by must be one of {', '.join(get_args(By))}: got {by!r:.60}")
    if by == "distance":
        return profile.forward, np.array(profile.forward.distance)
    if not profile.chains:
        raise ValueError(f"the profile has no chain, which {by} is of")
    chain = profile.chains[0]
    if by == "gap":
        return chain, np.maximum(find_gap(profile, chain), 0.0)
    assert chain.travel is not None
    travel = np.array(chain.travel)
    if chain.steps == profile.total:
        return chain, travel
    # A longer step goes farther: what counts is the way for each timestep.
    return chain, travel / np.diff(chain.timesteps, append=chain.timesteps[-1] + 1)


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
