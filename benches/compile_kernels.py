"""Compiles every launch of every kernel for GPUs that need not be here, and says what it takes.

The host functions run as they are, with their own constants and types, on tensors without memory;
Triton's driver is one that names a device and launches nothing.  Shared memory, registers and
spilled bytes are those that `ptxas` reports.  It exits with 1 where a launch needs more shared
memory than a block can have, or where a kernel spills registers in its default configuration.

    python benches/compile_kernels.py [concept ...] [--defaults] [--target 80 ...]

`--defaults` leaves out the other candidates of configurations that are timed on a GPU.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

# A kernel module decides when it is imported whether it is interpreted.
os.environ.pop("TRITON_INTERPRET", None)

from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime import JITFunction, driver

from launches import LAUNCHES
from lmcore.kernels import tuning

# Bytes of shared memory that a block can have: A100, H100.
SHARED = {80: 163 << 10, 90: 227 << 10}
# Of what a kernel is launched with: what Triton adds, and what is the same for all.
UNSHOWN = {"debug", "enable_fp_fusion", "fpsan_homomorphic_casts", "instrumentation_mode"}


@dataclass(kw_only=True, slots=True, frozen=True)
class Compiled:
    """A kernel as it was compiled for a launch."""

    concept: str
    kernel: str
    target: int
    is_default: bool
    states_fusion: bool
    configuration: str
    types: str
    shared: int
    registers: int
    spilled: int

    def complain(self) -> str:
        """Returns what is wrong with it."""
        if self.shared > SHARED[self.target]:
            return f"more shared memory than {SHARED[self.target]} bytes"
        if not self.states_fusion:
            return "enable_fp_fusion must be stated: its default is not that of later versions"
        return "registers are spilled" if self.spilled and self.is_default else ""


class Driver:
    """Of a device that compiles and does not run."""

    def __init__(self, target: int) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        """Returns what is compiled for."""
        return GPUTarget("cuda", self.target, 32)

    def get_current_device(self) -> int:
        """Returns a number of its own for each target: kernels are cached by it."""
        return self.target

    def get_current_stream(self, device: int) -> int:
        """Returns the default stream."""
        return 0


class Recorder:
    """Compiles launches in place of running them, in all candidates."""

    def __init__(self, *, defaults: bool) -> None:
        self._defaults = defaults
        self._run = JITFunction.run
        self._is_default = True
        self.launches: list[tuple[str, int, bool, Any, Any]] = []
        self.concept, self.target = "", 0

    def __enter__(self) -> Self:
        recorder = self

        def run(function: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
            kernel = recorder._run(function, *args, grid=grid, warmup=True, **kwargs)
            recorder.launches.append(
                (recorder.concept, recorder.target, recorder._is_default, kernel, kwargs)
            )
            return kernel

        def choose(kernel: str, sizes: Any, dtype: Any, device: Any, candidates: Any, launch: Any):
            # The default is launched by whoever asks.
            for candidate in () if recorder._defaults else candidates[1:]:
                recorder._is_default = False
                launch(candidate)
                recorder._is_default = True
            return candidates[0]

        self._choose, tuning.choose = tuning.choose, choose
        JITFunction.run = run
        return self

    def __exit__(self, *error: object) -> None:
        JITFunction.run, tuning.choose = self._run, self._choose


def compile_all(concepts: list[str], targets: list[int], *, defaults: bool) -> list[Compiled]:
    """Returns every kernel that the launches of these concepts compile, once."""
    with Recorder(defaults=defaults) as recorder:
        for target in targets:
            driver.set_active(Driver(target))
            for concept in concepts:
                recorder.concept, recorder.target = concept, target
                LAUNCHES[concept]()
    distinct = {}
    for launch in recorder.launches:
        distinct.setdefault((launch[1], launch[3].hash), launch)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda launch: describe(*launch), distinct.values()))


def describe(concept: str, target: int, is_default: bool, kernel: Any, kwargs: Any) -> Compiled:
    """Returns what a compiled kernel takes of a multiprocessor."""
    registers, spilled = ask_ptxas(kernel.asm["ptx"], target)
    names = [name for name, kind in kernel.src.signature.items() if kind.startswith("*")]
    types = [kernel.src.signature[name] for name in names]
    return Compiled(
        concept=concept,
        kernel=kernel.metadata.name,
        target=target,
        is_default=is_default,
        states_fusion="enable_fp_fusion" in kwargs,
        configuration=", ".join(
            f"{name} {value}"
            for name, value in sorted(kwargs.items())
            if type(value) in (int, bool) and name not in UNSHOWN
        ),
        types=" ".join(dict.fromkeys(types)),
        shared=kernel.metadata.shared,
        registers=registers,
        spilled=spilled,
    )


def ask_ptxas(code: str, target: int) -> tuple[int, int]:
    """Returns registers of a thread, and bytes that it spills (stores and loads)."""
    architecture = f"sm_{target}{'a' if target >= 90 else ''}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(code)
        done = subprocess.run(
            [get_ptxas(target).path, "-v", "--regAllocOptLevel=2", f"--gpu-name={architecture}",
             path, "-o", Path(folder, "kernel.cubin")],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    log = done.stderr
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", log)
    registers = re.findall(r"Used (\d+) registers", log)
    return max(map(int, registers)), sum(map(int, spills))


def main() -> None:
    """Prints a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("concepts", nargs="*", metavar="concept", help=", ".join(LAUNCHES))
    parser.add_argument("--defaults", action="store_true")
    parser.add_argument("--target", type=int, nargs="+", choices=SHARED, default=list(SHARED))
    options = parser.parse_args()
    if unknown := set(options.concepts) - set(LAUNCHES):
        parser.error(f"no launches of {', '.join(sorted(unknown))}")
    concepts = options.concepts or list(LAUNCHES)
    found = compile_all(concepts, options.target, defaults=options.defaults)
    for one in found:
        print(
            f"{one.concept} | {one.kernel} | sm_{one.target} | {one.types} | {one.configuration} | "
            f"shared {one.shared} | registers {one.registers} | spilled {one.spilled}"
            + (f" | {one.complain()}" if one.complain() else "")
        )
    sys.exit(any(one.complain() for one in found))


if __name__ == "__main__":
    main()
