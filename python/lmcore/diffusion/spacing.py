"""Which timesteps of its training a model samples with, by the names and specifications of users.

| schedule | timesteps |
| --- | --- |
| `adaptive` | Adaptive Decay Sampling: most of them where there is most noise |
| `uniform` | equally far apart |
| `quadratic` | denser at much noise by a square, the authors' `x2_N` |
| `ddim` | a stride from 0, the authors' `ddimN` |
| `adp_20`, `x2_10`, `ddim50`, `10,20` | what the authors' code keeps, faults included |

The first three always sample from the last timestep, T - 1, on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig
from lmcore.diffusion.process import Process
from lmcore.ops.schedule import (
    ADAPTIVE_DECAY,
    adaptive_timesteps,
    make_betas,
    space_betas,
    space_timesteps,
)

SCHEDULES = ("adaptive", "uniform", "quadratic", "ddim")
_SPECIFICATION = re.compile("(adp_|x2_|ddim)[0-9]{1,20}|[0-9]{1,20}(, *[0-9]{1,20})*")
STEPS = 20
"""That are taken where none are named: the authors' `adp_20`."""


def choose_timesteps(
    total: int,
    schedule: str = "adaptive",
    steps: int | None = None,
    proportions: Sequence[float] | None = None,
) -> list[int]:
    """Returns the timesteps to sample with, the noisiest first.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), section 6 of the specification.

    Args:
        total: T, of the training.
        schedule: one of `SCHEDULES`, or a specification as for
            `lmcore.ops.schedule.space_timesteps`.
        steps: N; 20 if None, and at most T. All T of them are every timestep, whatever the
            schedule. A specification has its own.
        proportions: of `adaptive`, as for `lmcore.ops.schedule.adaptive_timesteps`.

    Raises:
        TypeError: `steps` is no int.
        ValueError: there is no such schedule, an argument does not go with it, there are more
            steps than T, or so many timesteps cannot be had.

    Example:
        >>> choose_timesteps(2000, "adaptive", 5)
        [1999, 1334, 1000, 667, 0]
        >>> choose_timesteps(2000, "uniform", 3), choose_timesteps(2000, "adp_4")
        ([1999, 1000, 0], [1999, 1334, 667, 0])
    """
    if proportions is not None and schedule != "adaptive":
        raise ValueError(f"proportions go with the schedule adaptive: got {schedule!r:.60}")
    if schedule not in SCHEDULES:
        return _read_specification(total, schedule, steps)
    steps = STEPS if steps is None else steps
    if not isinstance(steps, int) or isinstance(steps, bool):
        raise TypeError(f"steps must be an int: got {type(steps).__name__}")
    if not 1 <= steps <= total:
        raise ValueError(
            f"steps must be from 1 to the {total} timesteps of the model's training: got {steps}"
        )
    if steps == total:
        return [*reversed(range(total))]
    if schedule == "adaptive":
        return adaptive_timesteps(total, steps, proportions or ADAPTIVE_DECAY)
    if schedule == "uniform" and steps == 1:  # of one point the authors take the first
        return [total - 1]
    names = {"quadratic": f"x2_{steps}", "ddim": f"ddim{steps}"}
    return _descend(total, names.get(schedule) or [steps])


def make_process(config: TextDiffusionConfig, timesteps: Sequence[int]) -> Process:
    """Returns the process of some timesteps of a model's training.

    Args:
        config: of the model.
        timesteps: in any order, each once.

    Raises:
        IndexError: a timestep is not below T.
        ValueError: a timestep stands there twice, or there is none.

    Example:
        >>> process = make_process(TextDiffusionConfig(), choose_timesteps(2000, "adaptive", 4))
        >>> process.betas.round(6).tolist()
        [0.014641, 0.567418, 0.566497, 0.999999]
    """
    total = config.diffusion_steps
    betas = make_betas(config.noise_schedule, total)
    if len(timesteps) == total:
        return Process(betas)
    kept = sorted(timesteps)
    return Process(space_betas(betas, kept), kept, total_steps=total)


def _read_specification(total: int, specification: str, steps: int | None) -> list[int]:
    if not _SPECIFICATION.fullmatch(specification):
        raise ValueError(
            f"schedule must be one of {', '.join(SCHEDULES)}, or a specification such as adp_20, "
            f"x2_10, ddim50 or 10,20: got {specification!r:.60}"
        )
    if steps is not None:
        raise ValueError(f"steps must not be given with the schedule {specification!r:.60}")
    return _descend(total, specification)


def _descend(total: int, spec: str | list[int]) -> list[int]:
    return [int(step) for step in space_timesteps(total, spec)[::-1]]
