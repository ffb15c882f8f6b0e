"""Which timesteps of a diffusion are kept: what names them, and lists of any proportions.

Source: Bridge-Gap Diffusion (arXiv 2305.04465), Adaptive Decay Sampling, and its code; strides and
sections are those of improved diffusion, but that each section but the last loses its last point.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from heapq import heapify, heapreplace
from itertools import accumulate, pairwise

from lmcore.reference._arguments import as_float, check_int, id_in_range, in_range

# A schedule has no more timesteps.
MOST_STEPS = 1 << 24
# Shares of the kept steps in thirds of growing noise: the authors' constants.
ADAPTIVE_DECAY = (0.08400242284240157, 0.36759523570876984, 0.5484023414488285)

_SPEC = re.compile(r"(adp_|x2_|ddim)([0-9]{1,18})|[0-9]{1,18}(,[0-9]{1,18})*", re.ASCII)
# How far the proportions may be from 1 in sum.
_ROUNDING = 1e-6


def space_timesteps(total: int, spec: str | Sequence[int]) -> list[int]:
    """The definition of `lmcore.ops.schedule.space_timesteps`, with the same arguments.

    Example:
        >>> space_timesteps(2000, "adp_5"), space_timesteps(2000, [3])
        ([0, 667, 1000, 1334, 1999], [0, 1000, 1999])
    """
    total = check_total(total)
    if not isinstance(spec, str):
        return _space_sections(total, spec)
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise ValueError(
            "spec must be adp_N, x2_N, ddimN, or counts of sections such as 10,20: "
            f"got {spec[:40]!r}"
        )
    kind, number, _ = found.groups()
    if kind is None:
        return _space_sections(total, [int(part) for part in spec.split(",")])
    count = check_int(f"N of {kind}N", int(number), 1, most=total)
    if kind == "ddim":
        return _space_evenly(total, count)
    return _space_adaptively(total, count) if kind == "adp_" else _space_quadratically(total, count)


def adaptive_timesteps(
    total: int, steps: int, proportions: Sequence[float] = ADAPTIVE_DECAY
) -> list[int]:
    """The definition of `lmcore.ops.schedule.adaptive_timesteps`, with the same arguments.

    Example:
        >>> adaptive_timesteps(2000, 5), adaptive_timesteps(2000, 3)
        ([1999, 1334, 1000, 667, 0], [1999, 667, 0])
    """
    total = check_total(total)
    steps = check_int("steps", steps, 1, most=total)
    counts = _share(steps, _check_proportions(total, proportions))
    kept: list[int] = []
    sections = _cut(total, len(counts))
    for index, ((start, size), count) in enumerate(zip(sections, counts, strict=True)):
        is_last = index + 1 == len(counts)
        if is_last and count == 1:
            kept.append(total - 1)
        elif count > 0:
            # The point that is dropped belongs to the next section.
            points = count if is_last or count == 1 else count + 1
            _check_size(index, size, points)
            kept += _points(start, size, points)[:count]
    return kept[::-1]


def order_timesteps(total: int, timesteps: Iterable[int]) -> list[int]:
    """Returns timesteps in ascending order, each of them once and below the total.

    Example:
        >>> order_timesteps(10, [9, 0, 4])
        [0, 4, 9]
    """
    given = list(timesteps)
    in_range("the length of kept", len(given), 1, most=total)
    for index, timestep in enumerate(given):
        id_in_range("kept", index, timestep, 0, total)
    ordered = sorted(given)
    for before, after in pairwise(ordered):
        if before == after:
            raise ValueError(f"kept must have each timestep once: got {after} twice")
    return ordered


def check_total(total: int) -> int:
    """Returns how many timesteps there are, in their range."""
    return check_int("total", total, 1, most=MOST_STEPS)


def _check_proportions(total: int, proportions: Sequence[float]) -> list[float]:
    """Returns the shares of sections: at least one, none below 0, 1 in sum."""
    in_range("the length of proportions", len(proportions), 1, most=total)
    shares = [as_float(f"proportions[{k}]", share) for k, share in enumerate(proportions)]
    for index, share in enumerate(shares):
        if not 0 <= share <= 1:
            raise ValueError(
                f"proportions[{index}] must be at least 0 and at most 1: got {share!r}"
            )
    if abs(math.fsum(shares) - 1) > _ROUNDING:
        raise ValueError(f"proportions must be 1 in sum: got {math.fsum(shares)!r}")
    return shares


def _share(steps: int, proportions: Sequence[float]) -> list[int]:
    """Returns how many steps each section gets: the last one what the others leave, at least one.

    With too few steps for all sections a section gives one up, of those that have most the one
    with the least share.
    """
    counts = [max(round(share * steps), 1) for share in proportions[:-1]]
    givers = [
        (-count, share, k)
        for k, (count, share) in enumerate(zip(counts, proportions, strict=False))
    ]
    heapify(givers)
    for _ in range(sum(counts) - steps + 1):
        count, share, k = givers[0]
        counts[k] -= 1
        heapreplace(givers, (count + 1, share, k))
    return [*counts, steps - sum(counts)]


def _space_adaptively(total: int, count: int) -> list[int]:
    """Sections of thirds, as the authors have them: of less than four steps the last is lost."""
    first, second = (max(round(share * count), 1) for share in ADAPTIVE_DECAY[:2])
    counts = [first + 1, second + 1, count - first - second]
    return _place(total, counts)


def _space_quadratically(total: int, count: int) -> list[int]:
    points = _points(0, total, count)
    last = total - 1
    return sorted({last - int((k / count) ** 2 * u) for k, u in enumerate(points, start=1)})


def _space_evenly(total: int, count: int) -> list[int]:
    stride = -(-total // count)
    if stride >= total or -(-total // stride) != count:
        raise ValueError(f"spec must be ddimN of a stride that keeps N of {total}: got N = {count}")
    return list(range(0, total, stride))


def _space_sections(total: int, counts: Sequence[int]) -> list[int]:
    in_range("the length of spec", len(counts), 1, most=total)
    checked = [check_int(f"spec[{k}]", count, 1, most=total) for k, count in enumerate(counts)]
    return _place(total, checked)


def _place(total: int, counts: Sequence[int]) -> list[int]:
    """Returns the points of all sections, each but the last without its last point."""
    kept: set[int] = set()
    for index, ((start, size), count) in enumerate(
        zip(_cut(total, len(counts)), counts, strict=True)
    ):
        _check_size(index, size, count)
        points = _points(start, size, count)
        kept.update(points if index + 1 == len(counts) else points[:-1])
    return sorted(kept)


def _cut(total: int, sections: int) -> list[tuple[int, int]]:
    """Returns start and size of each section: the first ones are one longer."""
    size, longer = divmod(total, sections)
    sizes = [size + (index < longer) for index in range(sections)]
    return list(zip(accumulate(sizes, initial=0), sizes, strict=False))


def _check_size(index: int, size: int, count: int) -> None:
    if count > size:
        raise ValueError(f"section {index} has {size} timesteps: {count} points do not fit")


def _points(start: int, size: int, count: int) -> list[int]:
    """Returns points from the first to the last of a section, or the first one alone."""
    width = (size - 1) / (count - 1) if count > 1 else 1.0
    points, place = [], 0.0
    for _ in range(count):
        points.append(start + round(place))
        place += width
    return points
