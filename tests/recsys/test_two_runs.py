"""Two commands that train into one folder: one goes on, the other ends with 2."""

import json
import time
from pathlib import Path

import pytest

from commands import SMALL, check_line, finish, start_warm, write_pairs
from lmcore._manifest import check_manifest


@pytest.mark.parametrize("apart", [0.0, 0.3, 1.5])
def test_two_runs_into_one_folder(tmp_path: Path, apart: float) -> None:
    data, out = write_pairs(tmp_path / "pairs.txt"), tmp_path / "run"
    # Each step takes a moment, so that the first still trains when the second has started.
    slow = """
import time
from lmcore.training import loop
original = loop.seed_torch
def seed_slowly(*arguments):
    time.sleep(0.2)
    return original(*arguments)
loop.seed_torch = seed_slowly
"""
    processes = []
    for seed in (1, 2):
        arguments = ["plain", "--data", data, "--out", out, "--epochs", 6, *SMALL, "--seed", seed]
        processes.append(start_warm("recsys", "train", *arguments, code=slow))
        time.sleep(apart)
    ended = [finish(process) for process in processes]
    codes = [code for code, _, _ in ended]
    assert sorted(codes) == [0, 2], ended
    check_line(ended[codes.index(2)], f"{out}: ", "another process is training into it")
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["config"]["loop"]["seed"] == 1 + codes.index(0)
    for kind in ("states", "models"):
        for folder in (out / kind).iterdir():
            assert check_manifest(folder)["fingerprint"] == recipe["fingerprint"]
    assert not list(out.rglob(".*"))
