"""Two processes that recover a model: the proportions and weights of one, also further on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import workers
from lmcore.compression.recovery import recover
from tiny_recovery import prune, save_openba, settings
from tiny_runs import make_texts

TOGETHER = """
import json, sys
import torch
torch.set_num_threads(1)
from lmcore.compression.recovery import recover
from tiny_recovery import settings
from tiny_runs import make_texts
torch.distributed.init_process_group("gloo")
found = []
for sharding in ("none", "full"):
    config = settings(proportions_rule="shipped", **{
        "device.sharding": sharding, "loop.steps": 4, "optimizer.lr": 2e-3, "micro_batch_size": 5})
    result = recover(config, make_texts(), f"{sys.argv[2]}/{sharding}", model=sys.argv[1],
                     valid=make_texts(3, seed=1))
    found.append([result.proportions, [line["loss"] for line in result.history],
                  [line["loss_distillation"] for line in result.history]])
print(json.dumps(found))
"""


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Three micro-batches for two, whole models and sharded ones; one of them goes on alone."""
    save_openba(tmp_path / "large", dropout=0.0)
    prune(tmp_path / "large", tmp_path / "small", hidden=range(12))
    outputs = workers.run(TOGETHER, 2, tmp_path / "small", tmp_path)
    two = [json.loads(text.splitlines()[-1]) for text in outputs]
    assert two[0] == two[1]
    before = torch.get_num_threads()
    config = settings(
        proportions_rule="shipped",
        **{"loop.steps": 6, "optimizer.lr": 2e-3, "micro_batch_size": 5},
    )
    given: Any = {"model": tmp_path / "small", "valid": make_texts(3, seed=1)}
    alone = recover(config, make_texts(), tmp_path / "alone", **given)
    for proportions, losses, divergences in two[0]:
        history = alone.history[:4]
        assert losses == pytest.approx([line["loss"] for line in history], abs=1e-6)
        taught = [line["loss_distillation"] for line in history]
        assert divergences == pytest.approx(taught, abs=1e-6)
        assert proportions != alone.proportions
    for name in ("none", "full"):
        again = recover(config, make_texts(), tmp_path / name, **given)
        assert again.resumed_after == 4
        assert again.history[-1]["loss"] == pytest.approx(alone.history[-1]["loss"], abs=1e-5)
        assert again.proportions == pytest.approx(alone.proportions, abs=1e-6)
    torch.set_num_threads(before)
