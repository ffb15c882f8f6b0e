"""Several processes that train OpenBA: the weights of one, at any number, also after a kill."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import workers
from lmcore.openba import OpenBAForConditionalGeneration
from tiny_runs import ARMS, take

BEGIN = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
from lmcore.openba.training import OpenBARun, train
from tiny_runs import ARMS, take
# One group for all runs: torch would make the second one at the address of the first.
torch.distributed.init_process_group("gloo")
root = sys.argv[1]
"""
KILLED = (
    BEGIN
    + """
step = OpenBARun.step
def dying(run, number):
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(run, number)
OpenBARun.step = dying
take("full", f"{root}/killed")
"""
)
TOGETHER = (
    BEGIN
    + """
found = {"killed": take("full", f"{root}/killed")}
for arm in ARMS:
    found[arm] = take(arm, f"{root}/{arm}-whole")
    take(arm, f"{root}/{arm}-half", **{"loop.steps": 3})
print(json.dumps(found))
"""
)
AGAIN = (
    BEGIN
    + """
print(json.dumps({arm: take(arm, f"{root}/{arm}-{sys.argv[2]}") for arm in ARMS}))
"""
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("runs")
    return path


@pytest.fixture(scope="module")
def two(root: Path) -> list[dict[str, Any]]:
    """What two processes did, after two that were killed."""
    killed = workers.start(KILLED, 2, root)
    for process in killed:
        process.communicate(timeout=300)
    assert -signal.SIGKILL in [process.returncode for process in killed]
    return [json.loads(text.splitlines()[-1]) for text in workers.run(TOGETHER, 2, root)]


@pytest.fixture(scope="module")
def alone(root: Path) -> dict[str, dict[str, Any]]:
    """What one process does from the start, with texts and with pairs."""
    before = torch.get_num_threads()
    found = {
        arm: take(arm, root / f"alone-{arm}", **{"device.sharding": "none"})
        for arm in ("none", "pairs")
    }
    torch.set_num_threads(before)
    return found


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "best" / "model.safetensors")


def compare(one: Path, two: Path) -> float:
    """The largest difference of a weight."""
    first, second = weights_of(one), weights_of(two)
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


def flat(found: dict[str, Any]) -> list[float]:
    values = [value for pair in found["losses"] for value in pair]
    return values + [value for metrics in found["metrics"] for value in metrics.values()]


def test_a_kill_changes_no_bit(root: Path, two: list[dict[str, Any]]) -> None:
    for each in two:
        assert each["killed"]["after"] == 4
        assert {**each["killed"], "after": 0} == each["full"]
    assert compare(root / "killed", root / "full-whole") == 0.0


@pytest.mark.parametrize("arm", ARMS)
def test_two_processes_train_as_one(
    arm: str, root: Path, two: list[dict[str, Any]], alone: dict[str, dict[str, Any]]
) -> None:
    """With dropout, sharded and recomputed or not, on texts and on pairs."""
    kind = "pairs" if arm == "pairs" else "none"
    assert two[0] == two[1]
    assert two[0][arm]["tokens"] == alone[kind]["tokens"]
    assert flat(two[0][arm]) == pytest.approx(flat(alone[kind]), rel=1e-6)
    assert compare(root / f"{arm}-whole", root / f"alone-{kind}") < 1e-6
    model = OpenBAForConditionalGeneration.from_pretrained(root / f"{arm}-whole" / "best")
    assert model.config.architectures == ["OpenBAForConditionalGeneration"]
    assert model.generate(torch.tensor([[5, 6, 1]]), max_new_tokens=2).shape[0] == 1


@pytest.mark.parametrize("count", [1, 4])
def test_a_run_goes_on_at_another_number(count: int, root: Path, two: list[dict[str, Any]]) -> None:
    """The first loss after it, and the weights at the end."""
    for arm in ARMS:
        shutil.copytree(root / f"{arm}-half", root / f"{arm}-{count}", symlinks=True)
    if count == 1:
        before = torch.get_num_threads()
        found = {
            arm: take(arm, root / f"{arm}-1", **{"device.sharding": "none"}) for arm in ARMS
        }  # fmt: skip
        torch.set_num_threads(before)
    else:
        found = json.loads(workers.run(AGAIN, count, root, count)[0].splitlines()[-1])
    for arm in ARMS:
        assert found[arm]["after"] == 3
        assert found[arm]["losses"][3] == pytest.approx(two[0][arm]["losses"][3], rel=1e-6)
        assert flat(found[arm]) == pytest.approx(flat(two[0][arm]), rel=1e-6)
        assert compare(root / f"{arm}-{count}", root / f"{arm}-whole") < 1e-6
