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
    """One comparison: times in milliseconds, ratios opponent / ours."""

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
    rows = []
    for times, (name, _, goal) in zip(our_times, ours, strict=True):
        ratios = [theirs / mine for theirs, mine in zip(opponent_times, times, strict=True)]
        values = [*_summary(opponent_times), *_summary(times), *_summary(ratios)]
        row = Row(
            concept=concept,
            case=case,
            opponent=opponent[0],
            ours=name,
            rounds=rounds,
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
        )
        print(
            f"{case} | {opponent[0]} {row.opponent_median:.4g} ms "
            f"({row.opponent_p20:.4g}-{row.opponent_p80:.4g}) | {name} {row.ours_median:.4g} ms "
            f"({row.ours_p20:.4g}-{row.ours_p80:.4g}) | {row.ratio_median:.4g}x "
            f"({row.ratio_p20:.4g}-{row.ratio_p80:.4g}) | asked: {goal or '-'}",
            flush=True,
        )
        rows.append(row)
    return rows


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


def save(concept: str, rows: Sequence[Row]) -> None:
    """Puts the rows of a concept in the file of this device, in place of its earlier ones."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{device_slug()}.csv"
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
    """Returns a file name for this device."""
    name = re.sub(r"[^a-z0-9]+", "-", _processor().lower()).strip("-")
    return f"{name}-{os.cpu_count()}-cores"


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
