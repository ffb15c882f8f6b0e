"""Timing by rounds: contenders take turns, ratios are taken inside a round, medians are given."""

from __future__ import annotations

import csv
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import lmcore

RESULTS = Path(__file__).parent / "results"


@dataclass(kw_only=True, slots=True, frozen=True)
class Row:
    """One comparison: times in milliseconds, ratios opponent / ours, peaks of memory in MB."""

    concept: str
    case: str
    opponent: str
    ours: str
    rounds: int
    opponent_median: float
    opponent_p20: float
    opponent_p80: float
    ours_median: float
    ours_p20: float
    ours_p80: float
    ratio_median: float
    ratio_p20: float
    ratio_p80: float
    goal: str
    python: str
    lmcore: str
    opponent_peak: float | None = None
    ours_peak: float | None = None


def compare(
    concept: str,
    case: str,
    opponent: tuple[str, Callable[[], object]],
    *ours: tuple[str, Callable[[], object], str],
    rounds: int = 7,
    repeats: int = 5,
) -> list[Row]:
    """Returns one row for each of ours against the opponent, and prints it.

    Args:
        concept: file stem of the bench.
        case: the input, in words.
        opponent: its name and what to call; called once a round.
        ours: names, calls, and the ratio that was asked for; the median of `repeats` calls
            counts in a round.
        rounds: how often everybody has a turn.
        repeats: calls of ours in a round.
    """
    opponent_times: list[float] = []
    our_times: list[list[float]] = [[] for _ in ours]
    for _ in range(rounds):
        opponent_times.append(_milliseconds(opponent[1]))
        for times, (_, call, _) in zip(our_times, ours, strict=True):
            times.append(statistics.median(_milliseconds(call) for _ in range(repeats)))
    return [
        make_row(concept, case, (opponent[0], opponent_times), (name, times), goal)
        for times, (name, _, goal) in zip(our_times, ours, strict=True)
    ]


def make_row(
    concept: str,
    case: str,
    opponent: tuple[str, Sequence[float]],
    ours: tuple[str, Sequence[float]],
    goal: str,
    peaks: tuple[float, float] | None = None,
) -> Row:
    """Returns the row of two contenders that were timed in the same rounds, and prints it.

    Args:
        concept: file stem of the bench.
        case: the input, in words.
        opponent: its name, and milliseconds of each round.
        ours: the same of ours.
        goal: the ratio that was asked for.
        peaks: megabytes that the opponent and ours need at most.
    """
    ratios = [theirs / mine for theirs, mine in zip(opponent[1], ours[1], strict=True)]
    values = [*_summary(opponent[1]), *_summary(ours[1]), *_summary(ratios)]
    row = Row(
        concept=concept,
        case=case,
        opponent=opponent[0],
        ours=ours[0],
        rounds=len(ratios),
        opponent_median=values[0],
        opponent_p20=values[1],
        opponent_p80=values[2],
        ours_median=values[3],
        ours_p20=values[4],
        ours_p80=values[5],
        ratio_median=values[6],
        ratio_p20=values[7],
        ratio_p80=values[8],
        goal=goal,
        python=platform.python_version(),
        lmcore=lmcore.__version__,
        opponent_peak=None if peaks is None else peaks[0],
        ours_peak=None if peaks is None else peaks[1],
    )
    memory = "" if peaks is None else f" | peak {peaks[0]:.4g} and {peaks[1]:.4g} MB"
    print(
        f"{case} | {row.opponent} {row.opponent_median:.4g} ms "
        f"({row.opponent_p20:.4g}-{row.opponent_p80:.4g}) | {row.ours} {row.ours_median:.4g} ms "
        f"({row.ours_p20:.4g}-{row.ours_p80:.4g}) | {row.ratio_median:.4g}x "
        f"({row.ratio_p20:.4g}-{row.ratio_p80:.4g}){memory} | asked: {goal or '-'}",
        flush=True,
    )
    return row


def measure_peak(call: Callable[[], object]) -> int:
    """Returns by how many MB the memory of this process grew at most during a call (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _kilobytes("VmRSS")
    call()
    return (_kilobytes("VmHWM") - before) // 1024


def scale(row: Row, factor: float) -> Row:
    """Returns a row whose opponent had so many times as much to do, and takes so long.

    Args:
        row: as it was timed.
        factor: how many times as much.
    """
    names = [
        f"{name}_{part}" for name in ("opponent", "ratio") for part in ("median", "p20", "p80")
    ]
    larger = replace(row, **{name: factor * getattr(row, name) for name in names})
    print(f"scaled by {factor}: {larger.opponent_median:.4g} ms, {larger.ratio_median:.4g}x")
    return larger


def save(concept: str, rows: Sequence[Row], device: str = "") -> None:
    """Puts the rows of a concept in the file of a device, in place of its earlier ones.

    Args:
        concept: file stem of the bench.
        rows: of it.
        device: its name; empty: these processors.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{make_slug(device) if device else device_slug()}.csv"
    kept: list[dict[str, object]] = []
    if path.exists():
        with path.open(newline="") as file:
            new = {(row.case, row.opponent, row.ours) for row in rows}
            kept = [
                dict(row)
                for row in csv.DictReader(file)
                if row["concept"] != concept
                or (row["case"], row["opponent"], row["ours"]) not in new
            ]
    rounded = [
        {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in asdict(row).items()}
        for row in rows
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*kept, *rounded], key=lambda row: str(row["concept"])))
    print(f"{path.name}: {len(rows)} rows of {concept}")


def print_conditions() -> None:
    """Prints device, cores and versions."""
    print(f"{_processor()}, {os.cpu_count()} cores | Python {platform.python_version()}", end=" ")
    print(f"| lmcore {lmcore.__version__} | {platform.system()}", flush=True)


def is_full() -> bool:
    """Says whether `--full` was asked for: opponents that take minutes and gigabytes."""
    return "--full" in sys.argv[1:]


def device_slug() -> str:
    """Returns a file name for these processors."""
    return f"{make_slug(_processor())}-{os.cpu_count()}-cores"


def make_slug(name: str) -> str:
    """Returns a name as a file is called."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        return found[1].strip()
    return platform.processor() or platform.machine()


def _kilobytes(key: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0])


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _summary(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)

    def quantile(share: float) -> float:
        return ordered[round(share * (len(ordered) - 1))]

    return statistics.median(values), quantile(0.2), quantile(0.8)
