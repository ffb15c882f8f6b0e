"""Which configuration a kernel runs in: sizes of blocks, warps, stages of its pipeline.

A host function lists its candidates, the best known first, and asks here:

    def launch(configuration):
        _kernel[grid(configuration)](..., **configuration)

    sizes = {"rows": rows, "columns": columns}
    launch(choose("my_kernel", sizes, x.dtype, x.device, CANDIDATES, launch))

On a CUDA device all candidates are timed when a class of shapes, a type and a device are met for
the first time, and the fastest stays for this process.  A class has all sizes up to the same power
of two, so that lengths which vary from batch to batch are timed a few times and not each time.

Nothing is timed, and the first candidate is taken, in the interpreter and on any other device,
while a CUDA graph is captured, where there is one candidate, and while `pin` holds: then a choice
comes from the pins or is the first.  So a run with pins computes the same bits each time, whatever
a clock says, and all its processes do the same.

While it is timed, `launch` runs many times on the same memory: what it writes must not depend on
what stood there, or must go to memory of its own.
"""

import statistics
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch

from lmcore.kernels._interpreter import INTERPRETED

Configuration: TypeAlias = Mapping[str, int]
Launch: TypeAlias = Callable[[Configuration], object]

# Rounds in which every candidate has a turn, and milliseconds that a turn shall take at least.
_ROUNDS, _TURN = 5, 0.2
_MOST_LAUNCHES = 50


@dataclass(kw_only=True, slots=True, frozen=True)
class Choice:
    """The configuration of a kernel for one class of shapes, one type and one device.

    Args:
        kernel: its name.
        sizes: each the largest of its class, a power of two.
        dtype: of the inputs: `bfloat16`.
        device: its name, or the type of one that is no GPU.
        configuration: what is constant when the kernel is compiled.

    Example:
        >>> Choice(kernel="my_kernel", sizes={"rows": 64}, dtype="bfloat16", device="NVIDIA H100",
        ...        configuration={"BLOCK": 64, "num_warps": 4}).configuration["BLOCK"]
        64
    """

    kernel: str
    sizes: Mapping[str, int]
    dtype: str
    device: str
    configuration: Configuration


_Key: TypeAlias = tuple[str, tuple[tuple[str, int], ...], str, str]

# Launches come from several threads: backward passes have their own.
_lock = threading.RLock()
_timed: dict[_Key, Choice] = {}
_pins: list[dict[_Key, Choice]] = []
_devices: dict[torch.device, str] = {}


def choose(
    kernel: str,
    sizes: Mapping[str, int],
    dtype: torch.dtype,
    device: torch.device,
    candidates: Sequence[Configuration],
    launch: Launch,
) -> Configuration:
    """Returns the configuration to launch a kernel in.

    Args:
        kernel: its name, one for each set of candidates.
        sizes: what the best configuration depends on, by name; each at least 0.
        dtype: of the inputs.
        device: where they are.
        candidates: at least one; the first is the fixed default.
        launch: launches the kernel in a configuration, as often as it is called.

    Raises:
        ValueError: what is pinned is none of the candidates.

    Example:
        >>> candidates = [{"BLOCK": 64}, {"BLOCK": 128}]
        >>> cpu = torch.device("cpu")
        >>> choose("my_kernel", {"rows": 9}, torch.float32, cpu, candidates, print)
        {'BLOCK': 64}
    """
    # A copy: another thread may begin or end a block of pins at this moment.
    pins = _pins[-1:]
    if pins:
        return _find_pinned(pins[0], _make_key(kernel, sizes, dtype, device), candidates)
    if len(candidates) == 1 or not _can_time(device):
        return candidates[0]
    key = _make_key(kernel, sizes, dtype, device)
    with _lock:
        if key not in _timed:
            _timed[key] = _make_choice(key, _find_fastest(candidates, launch))
        return _timed[key].configuration


def list_choices() -> list[Choice]:
    """Returns what was chosen by timing in this process, in the order of its first launches.

    Example:
        >>> list_choices()  # where nothing was launched
        []
    """
    with _lock:
        return list(_timed.values())


@contextmanager
def pin(choices: Iterable[Choice]) -> Iterator[None]:
    """Yields while nothing is timed: kernels run as these say, and others as their default.

    It holds in all threads, since backward passes run in threads of their own.  Of blocks within
    each other the inner one counts.

    Args:
        choices: of any kernels and devices.

    Raises:
        ValueError: two of them are for the same.

    Example:
        >>> with pin([]):  # every kernel in its default
        ...     pass
    """
    pins: dict[_Key, Choice] = {}
    for choice in choices:
        key = (choice.kernel, tuple(sorted(choice.sizes.items())), choice.dtype, choice.device)
        if key in pins:
            raise ValueError(
                f"choices must be for different shapes: {choice.kernel} stands twice "
                f"with {dict(choice.sizes)}, {choice.dtype}, {choice.device}"
            )
        pins[key] = choice
    with _lock:
        _pins.append(pins)
    try:
        yield
    finally:
        with _lock:
            # By what it is: an equal one may be of another thread.
            del _pins[next(i for i, other in enumerate(_pins) if other is pins)]


def _find_pinned(
    pins: Mapping[_Key, Choice], key: _Key, candidates: Sequence[Configuration]
) -> Configuration:
    if key not in pins:
        return candidates[0]
    pinned = pins[key].configuration
    if pinned not in candidates:
        raise ValueError(
            f"choices must be of this version's candidates: {dict(pinned)} is none of {key[0]}'s"
        )
    return pinned


def _make_key(
    kernel: str, sizes: Mapping[str, int], dtype: torch.dtype, device: torch.device
) -> _Key:
    classes = tuple(sorted((name, _round_up(size)) for name, size in sizes.items()))
    return kernel, classes, str(dtype).removeprefix("torch."), _name_device(device)


def _make_choice(key: _Key, configuration: Configuration) -> Choice:
    kernel, sizes, dtype, device = key
    return Choice(
        kernel=kernel, sizes=dict(sizes), dtype=dtype, device=device, configuration=configuration
    )


def _round_up(size: int) -> int:
    """The power of two that is at least this."""
    return 1 << max(size - 1, 0).bit_length()


def _name_device(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    if device not in _devices:
        _devices[device] = torch.cuda.get_device_name(device)
    return _devices[device]


def _can_time(device: torch.device) -> bool:
    """Whether launches run on a device that has a clock, and run now."""
    if INTERPRETED or device.type != "cuda":
        return False
    return not torch.cuda.is_current_stream_capturing()


def _find_fastest(candidates: Sequence[Configuration], launch: Launch) -> Configuration:
    """Of those that fit the device; candidates take turns, so that its clock is the same for all.

    Raises:
        Exception: as the first candidate, where none fits.
    """
    fitting, counts, refusal = [], [], None
    for candidate in candidates:
        try:
            # The first launch compiles, the second warms up.
            _measure(launch, candidate, 1)
            once = _measure(launch, candidate, 1)
        except Exception as error:  # whatever the compiler says of too little memory
            if not _is_refusal(error):
                raise
            refusal = refusal or error
            continue
        fitting.append(candidate)
        counts.append(min(max(round(_TURN / max(once, 1e-3)), 1), _MOST_LAUNCHES))
    if not fitting:
        assert refusal is not None
        raise refusal
    if len(fitting) == 1:
        return fitting[0]
    times: list[list[float]] = [[] for _ in fitting]
    for turn in range(_ROUNDS):
        for place in range(len(fitting)):
            # Another one begins each time: the first of a round finds a cold cache.
            own = (place + turn) % len(fitting)
            times[own].append(_measure(launch, fitting[own], counts[own]))
    medians = [statistics.median(own) for own in times]
    return fitting[medians.index(min(medians))]


def _measure(launch: Launch, configuration: Configuration, count: int) -> float:
    """Milliseconds of a launch on the device: the mean of `count` ones behind each other."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(count):
        launch(configuration)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / count


def _is_refusal(error: Exception) -> bool:
    """Whether a configuration needs more of the device than there is."""
    return type(error).__name__ in ("OutOfResources", "PTXASError")
