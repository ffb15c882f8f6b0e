"""Turning a training checkpoint of four ranks into a model's folder, against `cp` of that folder.

`cp` reads and writes the bytes that come out and no others, in one piece: it is a bound, not a
contender. Both read what is in the page cache and write into it; what the disk takes behind them
is waited for between the rounds. Weights are random bits of 1.27 billion parameters in float16.
Memory that is no page of a file is watched in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration, convert
from timing import Row, make_row, print_conditions, save

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from megatron_files import write_checkpoint

RANKS, ROUNDS = 4, 7
GOAL = "0.6"
MOST_BYTES = 2e9
CONFIG = {
    "vocab_size": 64_000, "hidden_size": 2048, "kv_channels": 128, "num_heads": 20,
    "ffn_hidden_size": 5632, "swiglu_rule": False, "encoder_layers": 4, "decoder_layers": 12,
    "add_qkv_bias": True, "add_lm_head_bias": True, "tie_word_embeddings": False,
}  # fmt: skip
WATCHED = """
import sys, threading, time
from lmcore.openba import convert
import lmcore.openba.conversion

def read():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024

peak, before, done = 0, read(), threading.Event()
def watch():
    global peak
    while not done.is_set():
        peak = max(peak, read())
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
convert(sys.argv[1], sys.argv[2])
done.set(), thread.join()
print(before, peak)
"""


def make_checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """Writes the checkpoint, and returns two tensors of its model."""
    with torch.device("meta"):
        model = OpenBAForConditionalGeneration(OpenBAConfig(**CONFIG)).half()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            bits = torch.randint(-(2**15), 2**15, parameter.shape, generator=generator,
                                 dtype=torch.int16)  # fmt: skip
            parameter.data = bits.view(torch.float16)
        model.lm_head.weight = model.encoder.embed_tokens.weight
    write_checkpoint(folder, model, RANKS)
    names = ("encoder.block.3.mlp.fc_in.weight", "decoder.block.11.inter_attn.o.weight")
    return {name: model.state_dict()[name].clone() for name in names}


def compare_folder(base: Path, expected: dict[str, torch.Tensor]) -> Row:
    """Converts the checkpoint and copies what comes out, in turn."""
    source, target, copy = base / "training", base / "model", base / "copy"

    convert(source, target)
    found = OpenBAForConditionalGeneration.from_pretrained(target).state_dict()
    for name, tensor in expected.items():
        # Random bits are no numbers here and there.
        if not torch.equal(found[name].view(torch.int16), tensor.view(torch.int16)):
            raise AssertionError(f"{name}: other bits than the model's")
    del found
    size = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    shutil.copytree(target, base / "bytes")

    calls: list[Callable[[], object]] = [
        lambda: subprocess.run(["cp", "-r", base / "bytes", copy], check=True),
        lambda: convert(source, target),
    ]
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for call, taken in zip(calls, times, strict=True):
            for folder in (target, copy):
                shutil.rmtree(folder, ignore_errors=True)
            os.sync()
            start = time.perf_counter()
            call()
            taken.append((time.perf_counter() - start) * 1e3)
    case = f"{RANKS} ranks, {size / 1e9:.2f} GB of float16, page cache warm"
    return make_row("openba_conversion", case, ("cp", times[0]), ("convert", times[1]), GOAL)


def main() -> None:
    """Times the conversion, in a folder that may be named, and prints its memory."""
    print_conditions()
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    with tempfile.TemporaryDirectory(dir=folders[0] if folders else None) as name:
        base = Path(name)
        expected = make_checkpoint(base / "training")
        row = compare_folder(base, expected)
        shutil.rmtree(base / "model", ignore_errors=True)
        output = subprocess.run(
            [sys.executable, "-c", WATCHED, base / "training", base / "model"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        before, peak = map(int, output.split())
        print(
            f"memory that is no page of a file: {before / 1e9:.2f} GB with what is imported, at "
            f"most {peak / 1e9:.2f} GB | asked: at most {MOST_BYTES / 1e9:.0f} GB"
        )
        assert peak < MOST_BYTES
    save("openba_conversion", [row])


if __name__ == "__main__":
    main()
