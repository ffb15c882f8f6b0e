"""What loading a sharded folder of OpenBA takes: memory beside the model's own, and seconds.

A folder of about 2 GB is written, and loaded in a process of its own, which watches its memory
until each weight has been used: transformers maps the files, whose pages are read then.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration
from timing import print_conditions

SHARD = "500MB"
ALLOWED = 1.3
# 544 million parameters, three blocks of the decoder for one of the encoder.
CONFIG = {
    "vocab_size": 32000, "hidden_size": 1024, "kv_channels": 64, "num_heads": 16,
    "ffn_hidden_size": 4096, "swiglu_rule": False, "encoder_layers": 6, "decoder_layers": 18,
    "add_qkv_bias": True, "add_lm_head_bias": True, "tie_word_embeddings": False,
}  # fmt: skip
LOAD = """
import json, sys, threading, time, torch
from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration

def read():
    rows = (line.split() for line in open("/proc/self/status"))
    found = {row[0]: int(row[1]) * 1024 for row in rows if row[0] in ("RssAnon:", "VmRSS:")}
    return found["RssAnon:"], found["VmRSS:"]

small = {**json.loads(sys.argv[2]), "encoder_layers": 1, "decoder_layers": 1, "hidden_size": 8}
OpenBAForConditionalGeneration(OpenBAConfig(**small))
before = read()
peaks, done = [0, 0], threading.Event()
def watch():
    while not done.is_set():
        for i, (value, base) in enumerate(zip(read(), before)):
            peaks[i] = max(peaks[i], value - base)
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
start = time.perf_counter()
model = OpenBAForConditionalGeneration.from_pretrained(sys.argv[1])
seconds = time.perf_counter() - start
# Tensors of a mapped file are read when they are used.
total = float(sum(p.sum(dtype=torch.float64) for p in model.parameters()))
used = time.perf_counter() - start
done.set(), thread.join()
found = {"own": peaks[0], "all": peaks[1], "seconds": seconds, "used": used, "total": total}
print(json.dumps(found))
"""


def main() -> None:
    """Writes the folder, loads it, and prints what was found."""
    print_conditions()
    with tempfile.TemporaryDirectory() as name:
        torch.manual_seed(0)
        model = OpenBAForConditionalGeneration(OpenBAConfig(**CONFIG))
        model.save_pretrained(name, max_shard_size=SHARD)
        total = float(sum(p.detach().sum(dtype=torch.float64) for p in model.parameters()))
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        del model
        shards = [path.stat().st_size for path in Path(name).glob("*.safetensors")]
        output = subprocess.run(
            [sys.executable, "-c", LOAD, name, json.dumps(CONFIG)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    found = json.loads(output.splitlines()[-1])
    assert found["total"] == total
    allowed = size + ALLOWED * max(shards)
    print(
        f"{size / 1e9:.2f} GB in {len(shards)} shards of at most {max(shards) / 1e9:.2f} GB | "
        f"loaded in {found['seconds']:.1f} s, each weight used after {found['used']:.1f} s | peak "
        f"{found['all'] / 1e9:.2f} GB, {found['own'] / 1e9:.2f} GB of it no pages of the files | "
        f"asked: under {allowed / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
