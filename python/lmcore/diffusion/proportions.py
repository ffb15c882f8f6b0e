"""Where sampling should spend its steps: proportions for Adaptive Decay Sampling, of a profile.

Source: Bridge-Gap Diffusion (arXiv 2305.04465), Adaptive Decay Sampling.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from lmcore.diffusion.profile import Curve, Profile, check_total, find_gap, read_profile
from lmcore.ops import schedule

TOTAL = 2000
"""T where nothing else says it: the paper's."""
By: TypeAlias = Literal["distance", "travel", "gap"]
"""What makes a timestep worth a step of sampling: see `find_proportions`."""


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
