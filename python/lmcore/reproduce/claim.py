"""A published claim, what was measured here, and the verdict that follows from both."""

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["reproduced", "not reproduced", "measured", "not run"]
Size = Literal["tiny", "quick", "full"]
"""How large an experiment is: `tiny` only shows that it runs, `quick` is `make demo`'s, `full` has
no limit of time."""
SIZES: tuple[Size, ...] = ("tiny", "quick", "full")

_NEED = re.compile(r"cuda|data:\w[\w.-]*(/\w[\w.-]*)*|package:\w[\w.-]*")


@dataclass(kw_only=True, slots=True, frozen=True)
class Measurement:
    """Named numbers of one run of an experiment with one seed."""

    values: Mapping[str, float]
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """To read, by what they were made of and by how."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Estimate:
    """A number measured with several seeds."""

    mean: float
    spread: float
    """Sample standard deviation over the seeds; nan for one seed or a number that is not finite."""

    def format(self, digits: int = 1, *, sign: bool = False) -> str:
        """Returns `mean ± spread`, or the mean alone where there is no spread.

        Args:
            digits: digits after the decimal point.
            sign: whether to write the sign of a positive mean.

        Example:
            >>> Estimate(mean=1.25, spread=0.04).format(2, sign=True)
            '+1.25 ± 0.04'
        """
        mean = round(self.mean, digits) + 0.0  # the sum turns -0.0 into 0.0
        text = f"{mean:{'+' if sign else ''}.{digits}f}"
        return text if math.isnan(self.spread) else f"{text} ± {self.spread:.{digits}f}"


Estimates = Mapping[str, Estimate]


@dataclass(kw_only=True, slots=True, frozen=True)
class Series:
    """One line of a plot, or one colour of its bars."""

    name: str
    y: tuple[float, ...]
    spread: tuple[float, ...]
    """Half the height of the band or error bar at each x; nan for none."""
    reference: bool = False
    """Whether the others are held against it; it is drawn broad and pale."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    series: tuple[Series, ...]


@dataclass(kw_only=True, slots=True, frozen=True)
class Plot:
    """A figure as data: panels side by side with the same axes and series names."""

    title: str
    kind: Literal["lines", "bars"]
    x_label: str
    y_label: str
    x: tuple[str, ...]
    """Ticks of the x axis, at equal distances."""
    panels: tuple[Panel, ...]
    logarithmic: bool = False
    """Whether the y axis is logarithmic."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Claim:
    """What a paper says, and how it is measured and judged here.

    Raises:
        ValueError: the expected verdict is `measured` and there is a rule, or the other way round;
            an expected verdict that no rule gives; a need or a size that does not exist.
    """

    id: str
    system: str
    """The package of lmcore that implements the system."""
    statement: str
    source: str
    """Where the paper says it."""
    paper: str
    """The paper's numbers, as text."""
    setting: str
    """What is measured here, and what differs from the paper."""
    measure: Callable[[int, Size], Measurement]
    """(seed, size) to the numbers of one run: a function of both, except for times, that runs in
    one thread unless the claim is `timed`."""
    describe: Callable[[Estimates], str]
    """The cell "measured here"; lines are kept."""
    rule: str
    """When the verdict is "reproduced", in words."""
    expected: Verdict
    """The verdict that the documents state; `--strict` holds a run to it. Where nothing is judged
    it is `measured`."""
    needs: tuple[str, ...] = ()
    """What a machine must have for it: `cuda`, `data:NAME`, a file or folder of `LMCORE_DATA`, or
    `package:NAME`, which pip installs. Without it the claim is not run, and the report says so."""
    sizes: tuple[Size, ...] = SIZES
    """In which it is measured; what takes longer than `make demo` may has no `quick`."""
    timed: bool = False
    """Whether it measures time, and therefore runs alone."""
    group: str | None = None
    """Claims of one group look at the same runs, which are made once: they are measured in one
    process, one after the other."""
    holds: Callable[[Estimates], bool] | None = None
    """The rule as a function; None where nothing is judged."""
    describe_speed: Callable[[Estimates], str] | None = None
    """The speed row; lines are kept."""
    plot: Callable[[Estimates], tuple[Plot, ...]] = lambda _: ()
    read_original: Callable[[str], Mapping[str, str]] = lambda _: {}
    """The name of texts to read to what they were made of, such as source and reference."""

    def __post_init__(self) -> None:
        if (self.holds is None) != (self.expected == "measured"):
            rule = "a claim without a rule" if self.holds is None else "a claim with a rule"
            raise ValueError(f"{self.id}: {rule} cannot be expected to be {self.expected}")
        if self.expected == "not run":
            raise ValueError(f"{self.id}: a claim cannot be expected to be not run")
        for need in self.needs:
            if not _NEED.fullmatch(need):
                raise ValueError(
                    f"{self.id}: a need is cuda, data:NAME or package:NAME: got {need!r}"
                )
        if not self.sizes or not set(self.sizes) <= set(SIZES):
            raise ValueError(f"{self.id}: sizes must be of {', '.join(SIZES)}: got {self.sizes}")


@dataclass(kw_only=True, slots=True, frozen=True)
class ResultRow:
    """A claim with the numbers of this run; holds data only, so that it can be saved."""

    id: str
    system: str
    statement: str
    source: str
    paper: str
    setting: str
    measured: str
    verdict: Verdict
    expected: Verdict
    """The verdict that the documents state."""
    reason: str
    """Why it was not run; empty where it was."""
    rule: str
    speed: str
    """Empty where the claim has no speed row."""
    estimates: Mapping[str, Estimate]
    plots: tuple[Plot, ...]
    seeds: tuple[int, ...]
    seconds: float
    """Time of all seeds, one after the other."""
    kept: int = 0
    """How many of its measurements are those of an earlier run."""
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Those of the first seed."""
    originals: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What they were made of, for the page alone: it may belong to others."""


def estimate(measurements: Sequence[Measurement]) -> dict[str, Estimate]:
    """Returns mean and spread of each named number.

    Args:
        measurements: one per seed, all with the same names.

    Raises:
        ValueError: no measurements, or their names differ.

    Example:
        >>> runs = [Measurement(values={"f1": 60.0}), Measurement(values={"f1": 62.0})]
        >>> estimate(runs)["f1"].format()
        '61.0 ± 1.4'
    """
    if not measurements:
        raise ValueError("measurements must hold at least one: got none")
    names = measurements[0].values.keys()
    for i, measurement in enumerate(measurements):
        if measurement.values.keys() != names:
            different = sorted(measurement.values.keys() ^ names)
            raise ValueError(
                f"measurements[{i}] must have the names of measurements[0]: {different}"
            )
    estimates = {}
    for name in names:
        numbers = [measurement.values[name] for measurement in measurements]
        spread = math.nan
        if len(numbers) > 1 and all(map(math.isfinite, numbers)):
            spread = statistics.stdev(numbers)
        estimates[name] = Estimate(mean=statistics.fmean(numbers), spread=spread)
    return estimates


def decide_verdict(
    claim: Claim, estimates: Estimates, seed_count: int, size: Size = "quick"
) -> Verdict:
    """Returns what the claim's rule says about the measured numbers.

    Args:
        claim: its `holds` is asked; without one the verdict is `measured`.
        estimates: what was measured; one number that is not finite fails every rule.
        seed_count: with fewer than two seeds there is no spread, and the verdict is `measured`.
        size: so it is if `tiny`, which shows nothing but that the claim can be measured.

    Example:
        >>> from lmcore.reproduce import CLAIMS
        >>> decide_verdict(CLAIMS["matching_rescue"], {}, seed_count=1)
        'measured'
    """
    if claim.holds is None or seed_count < 2 or size == "tiny":
        return "measured"
    numbers = (number for e in estimates.values() for number in (e.mean, e.spread))
    if not all(map(math.isfinite, numbers)):
        return "not reproduced"
    return "reproduced" if claim.holds(estimates) else "not reproduced"


def make_row(
    claim: Claim,
    measurements: Sequence[Measurement],
    seeds: Sequence[int],
    seconds: float,
    size: Size = "quick",
) -> ResultRow:
    """Returns the claim's row of the report.

    Args:
        claim: what was measured.
        measurements: one per seed.
        seeds: the seeds.
        seconds: time of all measurements.
        size: at which it was measured.

    Raises:
        ValueError: no measurements, their names differ, or there are not as many as seeds.
    """
    if len(measurements) != len(seeds):
        raise ValueError(
            "measurements must have the same length as seeds: "
            f"got {len(measurements)} and {len(seeds)}"
        )
    estimates = estimate(measurements)
    texts = measurements[0].texts
    return ResultRow(
        **_describe(claim),
        measured=claim.describe(estimates),
        verdict=decide_verdict(claim, estimates, len(seeds), size),
        reason="",
        speed=claim.describe_speed(estimates) if claim.describe_speed else "",
        estimates=estimates,
        plots=claim.plot(estimates),
        seeds=tuple(seeds),
        seconds=seconds,
        texts=texts,
        originals={name: claim.read_original(name) for name in texts},
    )


def make_absent_row(claim: Claim, reason: str) -> ResultRow:
    """Returns the row of a claim that was not run.

    Args:
        claim: which one.
        reason: why.

    Example:
        >>> from lmcore.reproduce import CLAIMS
        >>> make_absent_row(CLAIMS["matching_speed"], "no time").verdict
        'not run'
    """
    return ResultRow(
        **_describe(claim),
        measured="",
        verdict="not run",
        reason=reason,
        speed="",
        estimates={},
        plots=(),
        seeds=(),
        seconds=0.0,
    )


def _describe(claim: Claim) -> dict[str, Any]:
    names = ("id", "system", "statement", "source", "paper", "setting", "rule", "expected")
    return {name: getattr(claim, name) for name in names}
