"""A state that was tampered with is refused by name: torch and numpy would fail somewhere later."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import SMALL, check_line, run_here, write_pairs
from lmcore.recsys.ids import IdMap
from lmcore.recsys.mine import FalseNegativeMiner

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A run after two epochs, and its state."""
    folder = tmp_path_factory.mktemp("states")
    write_pairs(folder / "pairs.txt")
    assert go_on(folder, 2)[0] == 0
    return folder, (folder / "run" / "checkpoint.pt").read_bytes()


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


CHANGES: dict[str, tuple[Change, str]] = {
    "no run": (lambda s: s.pop("run"), "KeyError: 'run'"),
    "a run that is none": (put("run", []), "run must be a mapping: got list"),
    "no history": (lambda s: s.pop("history"), "KeyError: 'history'"),
    "a history that is none": (put("history", 3), "history must hold a record of each epoch"),
    "a short history": (lambda s: s["history"].pop(0), "history must hold a record of each epoch"),
    "a tensor in the history": (put("history", 0, "loss", torch.zeros(1)), "not JSON serializable"),
    "a best epoch to come": (put("best_epoch", 3), "best_epoch must be one of 2: got 3"),
    "a best epoch of text": (put("best_epoch", "1"), "best_epoch must be one of 2: got '1'"),
    "no wait": (put("waited", None), "waited must be a number of validations: got None"),
    "no metric": (put("best_value", float("nan")), "best_value must be a metric: got nan"),
    "a missing weight": (lambda s: s["run"]["model"].popitem(), "Error(s) in loading state_dict"),
    "weights of another shape": (
        put("run", "model", "item_emb.weight", torch.zeros(2, 2)), "Error(s) in loading state_dict"
    ),
    "no weights": (put("run", "model", [1]), "Expected state_dict to be dict-like"),
    "no moments": (put("run", "optimizer", 7), "a state of Adam must hold the moments of"),
    "a missing moment": (
        lambda s: s["run"]["optimizer"]["state"].pop(0), "a state of Adam must hold the moments of"
    ),
    "a moment of another name": (
        put("run", "optimizer", "state", 0, "max_exp_avg_sq", torch.zeros(1)),
        "parameter 0 must have step, exp_avg and exp_avg_sq",
    ),
    "a moment of another shape": (
        put("run", "optimizer", "state", 0, "exp_avg", torch.zeros(1)),
        "exp_avg of parameter 0 must be [31, 8] torch.float32: got [1] torch.float32",
    ),
    "a moment of another type": (
        put("run", "optimizer", "state", 1, "exp_avg_sq", torch.zeros(6, 8).double()),
        "exp_avg_sq of parameter 1 must be [6, 8] torch.float32: got [6, 8] torch.float64",
    ),
    "a step that is no number": (
        put("run", "optimizer", "state", 0, "step", torch.zeros(0)),
        "step of parameter 0 must be [] torch.float32: got [0] torch.float32",
    ),
    "a teacher that is none": (put("run", "teacher", [1]), "Expected state_dict to be dict-like"),
    "no miner": (put("run", "miner", None), "NoneType"),
    "a count out of range": (
        put("run", "miner", "reversed_count", 10**30), "reversed_count must be at least 0 and below"
    ),
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
    file = folder / "run" / "checkpoint.pt"
    file.write_bytes(content)
    change, message = CHANGES[name]
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)
    tampered = file.read_bytes()
    check_line(go_on(folder, 3), f"{file}: not the state of a run: ", message)
    assert file.read_bytes() == tampered


def test_options_of_the_optimizer_come_from_the_recipe(whole: tuple[Path, bytes]) -> None:
    folder, content = whole
    file = folder / "run" / "checkpoint.pt"
    file.write_bytes(content)
    state = torch.load(file, weights_only=True)
    state["run"]["optimizer"]["param_groups"][0].update(lr=1e3, amsgrad=True)
    torch.save(state, file)
    code, _, errors = go_on(folder, 3)
    assert code == 0, errors
    after = torch.load(file, weights_only=True)["run"]["optimizer"]["param_groups"][0]
    assert (after["lr"], after["amsgrad"]) == (1e-3, False)


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
