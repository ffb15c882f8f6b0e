"""What two processes hold of a model in shards while its state is saved and loaded.

torchrun starts two processes on gloo. They train a model of 193 million parameters for one step
with `device.sharding=full`, save the state, and end; two others load it. Beside each of them a
process reads its anonymous memory (RssAnon: all that is no page of a file), so that peaks are seen
whatever holds the interpreter. `--small` takes a model of 4 million parameters.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmcore.openba import OpenBATokenizer
from lmcore.openba.recipes import tiny
from lmcore.openba.training import OpenBARun
from lmcore.training import checkpoint
from lmcore.training.config import change
from lmcore.training.processes import start_processes
from lmcore.worlds.openba import write_piece_file
from timing import print_conditions

LENGTH = 62
COMMON: dict[str, Any] = {
    "encoder_length": LENGTH + 2, "batch_size": 2, "micro_batch_size": 1, "device.device": "cpu",
    "device.threads": 1, "device.sharding": "full", "schedule.warmup_steps": 0,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "large": {
        "shape.hidden_size": 1024, "shape.heads": 16, "shape.kv_channels": 64,
        "shape.ffn_hidden_size": 2816, "shape.encoder_layers": 3, "shape.decoder_layers": 9,
    },
    "small": {
        "shape.hidden_size": 256, "shape.heads": 4, "shape.kv_channels": 64,
        "shape.ffn_hidden_size": 704, "shape.encoder_layers": 1, "shape.decoder_layers": 3,
    },
}  # fmt: skip
WATCH = """
import os, select, sys
file = open(f"/proc/{sys.argv[1]}/status", "rb", buffering=0)
def read():
    file.seek(0)
    return int(file.read().split(b"RssAnon:")[1].split()[0]) * 1024
peak = read()
while True:
    peak = max(peak, now := read())
    if select.select([0], [], [], 0.002)[0]:
        if not os.read(0, 1):
            break
        print(peak, now, flush=True)
        peak = now
"""


class Watch:
    """The anonymous memory of this process, read by another one."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", WATCH, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.phases: dict[str, dict[str, float]] = {}

    def read(self) -> tuple[int, int]:
        """The peak since it was asked last, and the bytes now."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b".")
        self._process.stdin.flush()
        peak, now = map(int, self._process.stdout.readline().split())
        return peak, now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Notes the seconds and the memory of what is done meanwhile."""
        _, before = self.read()
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        peak, after = self.read()
        self.phases[name] = {"seconds": seconds, "before": before, "peak": peak, "after": after}

    def close(self) -> None:
        """Ends the process that reads."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def work(folder: Path, kind: str, shape: str) -> None:
    """What each of the two processes does: `save` after a step, or `load`."""
    tokenizer = OpenBATokenizer(folder / "spiece.model")
    texts = np.random.default_rng(0).integers(300, 600, (4, LENGTH))
    config = change(tiny(), {**COMMON, **SHAPES[shape]})
    watch = Watch()
    with start_processes("cpu") as processes:
        with watch.phase("make and share out"):
            run = OpenBARun(config, texts, tokenizer=tokenizer, processes=processes)
        if kind == "save":
            with watch.phase("step"):
                run.step(1)
            with watch.phase("save"):
                checkpoint.save(folder / "state", {"run": run.state_dict()}, processes)
            (folder / "model").mkdir(exist_ok=True)
            with watch.phase("save the model"):
                run.save_model(folder / "model")
        else:
            with watch.phase("load"):
                load(folder / "state", run, processes)
        found = {"phases": watch.phases, **count(run), "digest": digest(run)}
        everything = processes.gather(found)
        if processes.is_first:
            print("FOUND " + json.dumps(everything), flush=True)
    watch.close()


def load(folder: Path, run: OpenBARun, processes: Any) -> None:
    """Takes over the state, as `fit` does."""
    template: Callable[[], Any] = lambda: {"run": run.state_dict()}  # noqa: E731
    run.load_state_dict(checkpoint.load(folder, processes, template)["run"])


def count(run: OpenBARun) -> dict[str, int]:
    """Parameters, and the bytes of the moments that this process holds."""
    moments = run.optimizer.adam.state.values()
    own = sum(m[n].to_local().nbytes for m in moments for n in ("exp_avg", "exp_avg_sq"))
    return {"parameters": sum(p.numel() for p in run.model.parameters()), "moments": own}


def digest(run: OpenBARun) -> str:
    """Of the shards of weights and moments."""
    found = hashlib.blake2b(digest_size=16)
    for parameter in run.model.parameters():
        state = run.optimizer.adam.state[parameter]
        for value in (parameter.detach(), state["exp_avg"], state["exp_avg_sq"]):
            found.update(value.to_local().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def start(folder: Path, kind: str, shape: str) -> list[dict[str, Any]]:
    """What each process found, first and second."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = [__file__, "--work", str(folder), kind, shape]
    output = subprocess.run(
        [*command, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    (line,) = (line for line in output.splitlines() if line.startswith("FOUND "))
    found: list[dict[str, Any]] = json.loads(line[6:])
    return found


def main() -> None:
    """Saves, loads, compares, and prints what was held."""
    print_conditions()
    shape = "small" if "--small" in sys.argv else "large"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        write_piece_file(folder / "spiece.model")
        saved = start(folder, "save", shape)
        loaded = start(folder, "load", shape)
        files = sorted((folder / "state").rglob("*.safetensors"))
        sizes = {file.name: file.stat().st_size for file in files}
    assert [one["digest"] for one in saved] == [one["digest"] for one in loaded]
    parameters = saved[0]["parameters"]
    whole = 8 * parameters
    own = " and ".join(f"{one['moments'] / 1e6:.0f}" for one in saved)
    print(
        f"{parameters / 1e6:.0f} million parameters, moments of {whole / 1e6:.0f} MB as a whole | "
        f"{own} MB of them in each process"
    )
    for process in (saved, loaded):
        for phase in process[0]["phases"]:
            for rank, one in enumerate(process):
                print(f"{phase}, process {rank}: {_say(one['phases'][phase])}")
    for rank, share in enumerate(("shard-00001", "shard-00002")):
        bytes_ = [size for file, size in sizes.items() if file.startswith(share)]
        print(f"files of process {rank}: {len(bytes_)} of {sum(bytes_) / 1e6:.0f} MB together")
    for process, phase in ((saved, "save"), (loaded, "load")):
        for one in process:
            found = one["phases"][phase]
            assert shape == "small" or found["peak"] - found["before"] < whole, phase
    print("no process came to hold as much as all moments while it saved or loaded")


def _say(phase: dict[str, float]) -> str:
    peak, before = phase["peak"], phase["before"]
    return (
        f"{phase['seconds']:.1f} s | {before / 1e6:.0f} MB before, at most "
        f"{(peak - before) / 1e6:.0f} MB more, {phase['after'] / 1e6:.0f} MB after"
    )


if __name__ == "__main__":
    if "--work" in sys.argv:
        work(Path(sys.argv[2]), *sys.argv[3:5])
    else:
        main()
