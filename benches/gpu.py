"""Timing on a GPU: contenders launched in turn behind a backlog of work, by the device's own clock.

The rules, each of which changes a result where it is not kept:

- A round queues one call of every contender behind work that keeps the device busy until all are
  queued, so that the time of a launch on the host does not count.  Where the backlog ends earlier,
  it is made longer and the round is repeated; a contender that waits for the device is named.
- Another contender begins each round, and what the L2 cache holds is written over before a call.
- The device warms up for half a second: short runs ride a clock that it does not keep.
- All contenders have the same input: power, and so the clock, depends on the numbers in it.

On a CPU the same calls are timed by Python's clock, at small sizes, so that benches are tested.

`python gpu.py` is what `make bench-gpu` runs: for each kernel its tests on the GPU, which compare
it with its definition, then its bench with `--cuda`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from timing import Row, make_row, measure_peak, print_conditions

# Seconds that all benches may take, and one.
SECONDS, SECONDS_OF_ONE = 570, 180
_WARM_SECONDS = 0.5
_BACKLOG_CYCLES, _MOST_BACKLOGS = 2_000_000, 8
# Each has a context on the GPU, of half a gigabyte.
_MOST_PROCESSES = 16


@dataclass(kw_only=True, slots=True, frozen=True)
class Contender:
    """What is timed.

    Args:
        name: as the results call it.
        call: one call; it must not wait for the device.
        goal: of one of ours, the ratio opponent / ours that was asked for.
    """

    name: str
    call: Callable[[], object]
    goal: str = ""


def find_device() -> torch.device:
    """Returns the GPU where `--cuda` asks for one, or the CPU; exits with 2 where there is none."""
    if "--cuda" not in sys.argv[1:]:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        print("no CUDA device was found: these benches need one", file=sys.stderr)
        sys.exit(2)
    return torch.device("cuda", torch.cuda.current_device())


def print_device(device: torch.device) -> None:
    """Prints the device and the versions that a result depends on."""
    print_conditions()
    versions = [f"torch {torch.__version__}"]
    if importlib.util.find_spec("triton") is not None:
        import triton

        versions.append(f"triton {triton.__version__}")
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        versions.insert(0, f"{properties.name}, {properties.multi_processor_count} processors")
        versions.append(f"CUDA {torch.version.cuda}")
    print(" | ".join(versions), flush=True)


def name_device(device: torch.device) -> str:
    """Returns the name of a GPU, for `timing.save`; nothing for the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def compare_on(
    device: torch.device,
    concept: str,
    case: str,
    opponents: Sequence[Contender],
    ours: Sequence[Contender],
    rounds: int = 21,
) -> list[Row]:
    """Returns a row for each of ours against each opponent, all timed in the same rounds.

    Args:
        device: where the calls compute.
        concept: file stem of the bench.
        case: the input, in words; on a GPU the row stands in a file of the device.
        opponents: at least one.
        ours: at least one.
        rounds: how often everybody has a turn.
    """
    contenders = [*opponents, *ours]
    peaks = [measure_memory(contender.call, device) for contender in contenders]
    times = time_rounds(device, contenders, rounds)
    rows = []
    for place, mine in enumerate(ours, start=len(opponents)):
        for other, opponent in enumerate(opponents):
            rows.append(make_row(
                concept, case, (opponent.name, times[other]), (mine.name, times[place]), mine.goal,
                (peaks[other], peaks[place]),
            ))  # fmt: skip
    return rows


def time_rounds(
    device: torch.device, contenders: Sequence[Contender], rounds: int
) -> list[list[float]]:
    """Returns the milliseconds of each contender in each round."""
    clock = _DeviceClock(device) if device.type == "cuda" else _HostClock()
    clock.warm_up(contenders)
    times: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds):
        order = rotate(len(contenders), turn)
        found = clock.time_round([contenders[place] for place in order])
        for place, milliseconds in zip(order, found, strict=True):
            times[place].append(milliseconds)
    return times


def rotate(count: int, turn: int) -> list[int]:
    """Returns the order of a round: another one begins each time, and follows another one.

    Args:
        count: of contenders.
        turn: of the round, from 0.
    """
    order = [(place + turn) % count for place in range(count)]
    return order if turn // count % 2 == 0 else order[::-1]


def measure_memory(call: Callable[[], object], device: torch.device) -> float:
    """Returns the megabytes that a call needs at most beyond what stands there before it."""
    call()  # what is compiled and cached at a first call does not count
    if device.type != "cuda":
        return measure_peak(call)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


class _HostClock:
    """Of a CPU, where a call is done when it returns."""

    def warm_up(self, contenders: Sequence[Contender]) -> None:
        for contender in contenders:
            contender.call()

    def time_round(self, contenders: Sequence[Contender]) -> list[float]:
        times = []
        for contender in contenders:
            start = time.perf_counter()
            contender.call()
            times.append((time.perf_counter() - start) * 1e3)
        return times


class _DeviceClock:
    """Of a GPU, by events in its queue."""

    def __init__(self, device: torch.device) -> None:
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        self._device = device
        # Twice what the cache holds: all of it is replaced.
        self._flushed = torch.empty(max(2 * cache, 1 << 26), dtype=torch.uint8, device=device)
        self._cycles = _BACKLOG_CYCLES
        self._waits = False

    def warm_up(self, contenders: Sequence[Contender]) -> None:
        end = time.perf_counter() + _WARM_SECONDS
        while True:
            for contender in contenders:
                contender.call()
            torch.cuda.synchronize(self._device)
            if time.perf_counter() > end:
                return

    def time_round(self, contenders: Sequence[Contender]) -> list[float]:
        while True:
            is_ahead, times = self._try_round(contenders)
            if is_ahead or self._waits:
                return times
            self._cycles *= 2
            if self._cycles >= _BACKLOG_CYCLES << _MOST_BACKLOGS:
                self._waits = True
                names = ", ".join(contender.name for contender in contenders)
                print(f"one of these waits for the device, and the host's time counts: {names}")

    def _try_round(self, contenders: Sequence[Contender]) -> tuple[bool, list[float]]:
        """Whether the host was ahead of the device all the time, and the times."""
        torch.cuda.synchronize(self._device)
        backlog = torch.cuda.Event()
        events: list[tuple[Any, Any]] = []
        torch.cuda._sleep(self._cycles)
        backlog.record()
        for contender in contenders:
            self._flushed.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            contender.call()
            end.record()
            events.append((start, end))
        is_ahead = not backlog.query()
        torch.cuda.synchronize(self._device)
        return is_ahead, [start.elapsed_time(end) for start, end in events]


def list_concepts() -> list[str]:
    """Returns the concepts that have a kernel and a bench."""
    folder = Path(__file__).parent
    kernels = {path.stem for path in (folder.parent / "kernels").glob("*.py")}
    return sorted(name for name in kernels if (folder / f"bench_{name}.py").exists())


def list_commands(concepts: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields what is run, and how: first that the kernels compute what their definitions say."""
    folder = Path(__file__).parent
    tests = [
        str(path) for name in concepts
        for path in sorted((folder.parent / "tests/ops").glob(f"test_{name}*.py"))
    ]  # fmt: skip
    # What takes the time is the compiler, which each process has for itself.
    processes = str(min(os.cpu_count() or 1, _MOST_PROCESSES))
    yield (
        "parity",
        [sys.executable, "-m", "pytest", "-q", "-n", processes, "--dist", "worksteal", *tests],
    )
    for name in concepts:
        yield name, [sys.executable, str(folder / f"bench_{name}.py"), "--cuda"]


def main() -> int:
    """Runs the tests and then the benches of all kernels; returns 1 where one fails."""
    sys.argv.append("--cuda")
    print_device(find_device())
    end, failed = time.monotonic() + SECONDS, []
    for name, command in list_commands(list_concepts()):
        left = min(end - time.monotonic(), SECONDS_OF_ONE)
        if left <= 0:
            failed.append(f"{name} (no time was left)")
            continue
        start = time.monotonic()
        try:
            code = subprocess.run(command, check=False, timeout=left).returncode
        except subprocess.TimeoutExpired:
            code = None
        seconds = time.monotonic() - start
        print(f"{name}: {seconds:.0f} s, {'too long' if code is None else f'exit {code}'}")
        if code != 0:
            failed.append(name)
            if name == "parity":
                break
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
