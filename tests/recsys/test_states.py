"""A state that was tampered with is refused by name: torch and numpy would fail somewhere later."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import SMALL, check_line, run_here, write_pairs
from lmcore._manifest import write_manifest
from lmcore.recsys.ids import IdMap
from lmcore.recsys.mine import FalseNegativeMiner
from lmcore.training.folder import RunFolder

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A run after two epochs, and its state."""
    folder = tmp_path_factory.mktemp("states")
    write_pairs(folder / "pairs.txt")
    assert go_on(folder, 2)[0] == 0
    return folder, state_file(folder).read_bytes()


def state_file(folder: Path) -> Path:
    """The newest state."""
    states = RunFolder(folder / "run")
    return states.find("states", states.states[-1]) / "state.pt"


def write(file: Path, state: Any) -> bytes:
    """Puts another state in the place of one, with its digest: somebody who knows what he does."""
    torch.save(state, file)
    manifest = json.loads((file.parent / "manifest.json").read_text())
    more = {"models": manifest["models"]}
    write_manifest(file.parent, manifest["fingerprint"], manifest["step"], **more)
    return file.read_bytes()


def go_on(folder: Path, epochs: int) -> tuple[int, str, str]:
    data, out = folder / "pairs.txt", folder / "run"
    start = ["--set", "start=1", "--epochs", epochs]
    return run_here("recsys", "train", "consistency", "--data", data, "--out", out, *SMALL, *start)


def put(*path: Any) -> Change:
    """Sets the entry at a path, whose last part is the value."""

    def change(state: dict[str, Any]) -> None:
        inner: Any = state
        for key in path[:-2]:
            inner = inner[key]
        inner[path[-2]] = path[-1]

    return change


WIDE = torch.ones(6, 8, dtype=torch.float64)
CHANGES: dict[str, tuple[Change, str]] = {
    "no run": (lambda s: s.pop("run"), "KeyError: 'run'"),
    "a run that is none": (put("run", []), "run must be a mapping: got list"),
    "no loop": (put("loop", 3), "loop must be a mapping"),
    "another step": (put("loop", "step", 3), "step must be "),
    "no window": (lambda s: s["loop"].pop("window"), "KeyError: 'window'"),
    "a window without counts": (put("loop", "window", "sums", {"loss": 1.0}), "window must have"),
    "a window of texts": (
        put("loop", "window", {"sums": {"a": "x"}, "counts": {"a": 1}, "last": {}, "seconds": 0}),
        "window must hold numbers",
    ),
    "a best step to come": (put("loop", "best_step", 10**6), "best_step must be one of "),
    "a best step of text": (put("loop", "best_step", "1"), "best_step must be one of "),
    "no wait": (put("loop", "waited", None), "waited must be a number of validations: got None"),
    "no metric": (put("loop", "best_value", float("nan")), "best_value must be a metric: got nan"),
    "a log of no size": (put("loop", "log_size", -1), "log_size must be a number of bytes: got -1"),
    "an end that is none": (put("loop", "end", {"best": [1, 0.5], "record": 3}), "end must hold"),
    "a missing weight": (lambda s: s["run"]["model"].popitem(), "Error(s) in loading state_dict"),
    "weights of another shape": (
        put("run", "model", "item_emb.weight", torch.zeros(2, 2)), "Error(s) in loading state_dict"
    ),
    "no weights": (put("run", "model", [1]), "Expected state_dict to be dict-like"),
    "no moments": (put("run", "optimizer", 7), "not subscriptable"),
    "a missing moment": (
        lambda s: s["run"]["optimizer"]["moments"].popitem(), "moments must be those of"
    ),
    "a moment of another name": (
        put("run", "optimizer", "moments", "item_emb.weight", "max_exp_avg_sq", torch.zeros(1)),
        "item_emb.weight must have step, exp_avg and exp_avg_sq",
    ),
    "a moment of another shape": (
        put("run", "optimizer", "moments", "item_emb.weight", "exp_avg", torch.zeros(1)),
        "exp_avg of item_emb.weight must be [31, 8] torch.float32: got [1] torch.float32",
    ),
    "a moment of another type": (
        put("run", "optimizer", "moments", "pos_emb.weight", "exp_avg_sq", WIDE),
        "exp_avg_sq of pos_emb.weight must be [6, 8] torch.float32: got [6, 8] torch.float64",
    ),
    "a step that is no number": (
        put("run", "optimizer", "moments", "item_emb.weight", "step", torch.zeros(0)),
        "step of item_emb.weight must be [] torch.float32: got [0] torch.float32",
    ),
    "no scale": (put("run", "optimizer", "scaler", {"scale": 1}), "scaler must be the state of"),
    "a teacher that is none": (put("run", "teacher", [1]), "list indices must be integers"),
    "a teacher of other weights": (
        put("run", "teacher", "values", 0, torch.zeros(1)), "average 0 must be [31, 8]"
    ),
    "a teacher of no updates": (
        put("run", "teacher", "update_count", -1), "update_count must be a number of updates"
    ),
    "a teacher without buffers": (put("run", "teacher", "buffers", 0), "buffers must be those of"),
    "no miner": (put("run", "miner", None), "NoneType"),
    "a count out of range": (
        put("run", "miner", "reversed_count", 10**30), "reversed_count must be at least 0 and below"
    ),
    "a loss that is none": (put("run", "loss_sum", "x"), "loss_sum must be a number: got 'x'"),
    "labels that are none": (put("run", "reversed", -1), "reversed must be a number of labels"),
    "losses that are none": (put("run", "loss_sums", ["x"]), "loss_sums must be a list of numbers"),
    "no start": (lambda s: s["run"].pop("started"), "KeyError: 'started'"),
    "a start of text": (put("run", "started", "x"), "started must be a truth value: got 'x'"),
    "an array of another size": (
        put("run", "miner", "active", "shape", [3]), "cannot reshape array"
    ),
    "an array of objects": (put("run", "miner", "active", "dtype", "O"), "array of references"),
    "an array that is none": (
        put("run", "miner", "active", "__array__", 1), "no attribute 'numpy'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_tampered_states(whole: tuple[Path, bytes], name: str) -> None:
    folder, content = whole
    file = state_file(folder)
    file.write_bytes(content)
    change, message = CHANGES[name]
    state = torch.load(file, weights_only=True)
    change(state)
    tampered = write(file, state)
    check_line(go_on(folder, 3), f"{file}: not the state of a run: ", message)
    assert file.read_bytes() == tampered


def test_a_changed_state_is_refused_by_its_digest(whole: tuple[Path, bytes]) -> None:
    folder, content = whole
    file = state_file(folder)
    for place in range(0, len(content), len(content) // 20):
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(bytes(changed))
        check_line(go_on(folder, 3), f"{file}: has changed since it was written")
    file.write_bytes(content)


def test_counts_of_a_miner() -> None:
    state = FalseNegativeMiner().state_dict()
    for value in (-1, 2**62, 10**30):
        with pytest.raises(
            ValueError, match=r"withheld_count must be at least 0 and below 2\*\*62"
        ):
            FalseNegativeMiner().load_state_dict(
                {**state, "withheld_count": np.array(value, dtype=object)}
            )


@pytest.mark.parametrize("count", [2**31, 2**63, 10**30, -1, 1.5, True])
def test_counts_of_an_id_map(tmp_path: Path, count: Any) -> None:
    """A few bytes must not ask for a machine's whole memory."""
    file = tmp_path / "id_map.json"
    file.write_text(f'{{"users": {str(count).lower()}, "items": 3}}')
    with pytest.raises(ValueError, match=r"id_map\.json: users must be a number below 2\*\*31, "):
        IdMap.load(file)
