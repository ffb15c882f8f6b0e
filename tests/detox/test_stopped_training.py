"""Training that is killed in the middle, or goes on in another number of processes."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny_chains
import workers
from commands import finish, run_here, start_warm
from lmcore.detox.recipes import TrainConfig
from lmcore.detox.span_labels import SpanExample
from lmcore.detox.span_recipes import tiny
from lmcore.detox.span_training import train_spans
from lmcore.detox.training import train
from lmcore.training.config import change
from tiny_detox import make_model, make_words, save_segment_cnn
from tiny_scorers import write_jsonl

ROWS = tiny_chains.make_rows(9)
EXAMPLES = [
    SpanExample(np.arange(5, 9 + n % 3, dtype=np.int32), np.arange(3 + n % 3, dtype=np.int8) % 2, 1)
    for n in range(9)
]
SHARED = ["--quiet", "--device", "cpu", "--threads", 1, "--set", "batch_size=4",
          "--set", "loop.steps=25", "--set", "loop.save_every_seconds=0"]  # fmt: skip


def chains(folder: Path) -> list[Any]:
    """A model from nothing with dropout, which contrasts anchors of windows of four steps."""
    data = write_jsonl(folder / "rows.jsonl", ROWS)
    sizes = ["hidden_size=16", "heads=2", "vocabulary=320", "dropout=0.1"]
    options = [part for size in sizes for part in ("--set", f"scratch.{size}")]
    return ["train", "tiny", "--data", data, "--valid", data, *SHARED, *options]


def spans(folder: Path) -> list[Any]:
    rows = [{"content": f"you are {word}", "score": [0, label]}
            for word, label in (("bad", 1), ("nice", 0), ("so", 0))] * 3  # fmt: skip
    data = write_jsonl(folder / "texts.jsonl", rows)
    model = save_segment_cnn(folder / "model")
    given = ["--recipe", "tiny", "--model", model, "--valid", data, "--set", "max_length=16"]
    return ["train-spans", data, *given, *SHARED]


@pytest.mark.alone
@pytest.mark.parametrize("make", [chains, spans])
def test_a_killed_command_goes_on(make: Any, tmp_path: Path) -> None:
    given = ["detox", *make(tmp_path), "--out"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _, expected, _ = run_here(*given, whole)
    process = start_warm(*given, killed)
    while process.poll() is None and not [*(killed / "states").glob("step-*")]:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    code, output, errors = run_here(*given, killed)
    assert code == 0, errors
    assert {**json.loads(output), "out": ""} == {**json.loads(expected), "out": ""}
    one, two = ((out / "best/model.safetensors").read_bytes() for out in (whole, killed))
    assert one == two
    lines = [(out / "log.jsonl").read_text().splitlines() for out in (whole, killed)]
    assert len(lines[0]) == len(lines[1])


BASE: dict[str, Any] = {
    "batch_size": 4, "micro_batch_size": 2, "optimizer.lr": 3e-4, "device.device": "cpu",
    "device.threads": 1, "schedule.kind": "constant", "loop.steps": 4, "loop.log_every_steps": 1,
    "loop.validate_every_steps": 2, "loop.save_every_seconds": 0.0,
}  # fmt: skip
ANCHORS: dict[str, Any] = {
    "warmup_share": 0.0, "max_chain_tokens": 120, "anchor_batch_size": 3,
    "contrastive.anchor_tokens": 3, "contrastive.max_continuation_tokens": 8,
}  # fmt: skip
TOGETHER = """
import json, sys
import torch
torch.set_num_threads(1)
from detox.test_stopped_training import take
torch.distributed.init_process_group("gloo")
for given in json.loads(sys.argv[1]):
    take(*given)
"""


def take(kind: str, model: str, out: str, changes: dict[str, Any]) -> None:
    """Trains a model of chains or of spans; without dropout, which each process draws itself."""
    if kind == "chains":
        config = change(TrainConfig(), {**BASE, **ANCHORS, "model": model, **changes})
        train(config, ROWS, out, valid=ROWS[:5])
    else:
        given = change(tiny(), {**BASE, "model": model, "max_length": 16, **changes})
        train_spans(given, EXAMPLES, out, valid=EXAMPLES[:5])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("models")
    tokenizer = make_words()
    make_model(tokenizer).save_pretrained(place / "spans")
    tokenizer.save(place / "spans")
    return {
        "chains": str(tiny_chains.save("gpt2", place / "chains")),
        "spans": str(place / "spans"),
    }


def test_a_run_goes_on_at_another_number(models: dict[str, str], tmp_path: Path) -> None:
    """From one process to two, with shards of the weights, and from two to one."""
    half, sharded = {"loop.steps": 2}, {"device.sharding": "full"}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for kind, model in models.items():
        take(kind, model, str(tmp_path / kind / "whole"), {})
        take(kind, model, str(tmp_path / kind / "more"), half)
    together = [
        (kind, model, str(tmp_path / kind / name), changes)
        for kind, model in models.items()
        for name, changes in (("more", sharded), ("less", {**half, **sharded}))
    ]
    workers.run(TOGETHER, 2, json.dumps(together))
    for kind, model in models.items():
        take(kind, model, str(tmp_path / kind / "less"), {})
        whole = tmp_path / kind / "whole"
        for name in ("more", "less"):
            found = tmp_path / kind / name
            assert read_log(found) == pytest.approx(read_log(whole), abs=1e-6), (kind, name)
            assert compare(found, whole) <= 1e-6, (kind, name)
    torch.set_num_threads(before)


def read_log(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def compare(one: Path, two: Path) -> float:
    """The largest difference of a weight."""
    first, second = (load_file(out / "best/model.safetensors") for out in (one, two))
    return max((first[name] - second[name]).abs().max().item() for name in first)
