"""Devices, threads, and several processes on this machine."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import workers
from lmcore.training.config import DeviceConfig
from lmcore.training.processes import Processes, find_device, start_processes, use_threads


def test_one_process_alone() -> None:
    with start_processes("cpu") as processes:
        assert processes.is_first
        assert (processes.data_rank, processes.data_count, processes.mesh) == (0, 1, None)
        part = torch.arange(3.0)
        assert processes.join(part, [3]) is part
        assert processes.mean(part) is part
        assert processes.agree("x") == "x"
        assert processes.gather("x") == ["x"]
        assert processes.first(lambda: 3) == 3
        with pytest.raises(ValueError, match="stop"):
            processes.together(lambda: (_ for _ in ()).throw(ValueError("stop")))


def test_devices() -> None:
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda: got 'fast'"):
        find_device("fast")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch finds no GPU"):
            find_device("cuda")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A machine with GPUs, on which nothing is computed; what was made the current one."""
    current: list[Any] = [torch.device("cuda", 0)]
    monkeypatch.setattr("lmcore.training.processes.find_device", torch.device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_a_numbered_gpu_is_the_current_one(gpus: list[Any]) -> None:
    with start_processes("cuda:1") as processes:
        assert processes.device == gpus[-1] == torch.device("cuda", 1)
    assert gpus[-1] == torch.device("cuda", 0)


def test_one_gpu_for_several_processes_is_refused(
    gpus: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = "device must be cuda where 2 processes run on a machine, each on .*: got 'cuda:0'"
    with pytest.raises(ValueError, match=message), start_processes("cuda:0"):
        pass
    assert len(gpus) == 1


def test_sharding_where_there_is_none_is_an_error() -> None:
    layer = nn.Linear(2, 2)
    message = "sharding must be none where one process runs; torchrun starts several"
    with pytest.raises(ValueError, match=message):
        Processes().shard(layer, [], DeviceConfig(sharding="full"))


def test_blocks_are_recomputed() -> None:
    calls = []

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            calls.append(1)
            return self.layer(x).tanh()

    torch.manual_seed(0)
    plain = nn.Sequential(Block(), Block())
    torch.manual_seed(0)
    other = nn.Sequential(Block(), Block())
    Processes().shard(other, list(other), DeviceConfig(recompute=True))
    assert list(plain.state_dict()) == list(other.state_dict())
    x = torch.ones(2, 3)
    plain(x).sum().backward()
    before = len(calls)
    other(x).sum().backward()
    assert len(calls) - before == 4
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 3])
def test_threads_are_put_back(count: int) -> None:
    before = torch.get_num_threads()
    with use_threads(count):
        assert torch.get_num_threads() == count
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="count must be at least 1: got 0"), use_threads(0):
        pass


TALK = """
import json, sys
import torch
from torch import nn
from lmcore.training.config import OptimizerConfig
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import start_processes

found = {}
with start_processes("cpu") as p:
    rank = p.rank
    found["who"] = [p.data_rank, p.data_count, p.count, p.is_first]
    found["join"] = p.join(torch.arange(rank + 1.0), [1, 2]).tolist()
    found["mean"] = p.mean(torch.tensor([float(rank)])).tolist()
    found["largest"] = p.largest(torch.tensor([rank, -rank])).tolist()
    found["agree"] = p.agree(["first", "second"][rank])
    found["gather"] = p.gather("rank" * rank)
    found["first"] = p.first(lambda: f"made by {rank}")
    def fail():
        if rank == 1:
            raise OSError(28, "full", "file")
        return rank
    try:
        p.together(fail)
    except OSError as error:
        found["together"] = [error.errno, error.filename]
    # The second parameter has a gradient in one process, the third in none.
    model = nn.ParameterList([nn.Parameter(torch.ones(2, 2)) for _ in range(3)])
    optimizer = Optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.5), processes=p)
    optimizer.backward(model[0].sum() + (model[1].sum() if rank else 0))
    p.sum_gradients(model)
    found["gradients"] = [None if q.grad is None else q.grad.tolist() for q in model]
    for q in model: q.grad = None
    optimizer.backward(model[0].sum() + (model[1].sum() if rank else 0))
    optimizer.update(1)
    found["weights"] = [q.flatten()[0].item() for q in model]
assert not torch.distributed.is_initialized()
print(json.dumps(found))
"""


def test_two_processes_talk() -> None:
    found = [json.loads(output) for output in workers.run(TALK, 2)]
    assert [f.pop("who") for f in found] == [[0, 2, 2, True], [1, 2, 2, False]]
    assert found[0] == found[1]
    assert found[0]["join"] == [0, 0, 1]
    assert (found[0]["mean"], found[0]["largest"]) == ([0.5], [1, 0])
    assert (found[0]["agree"], found[0]["first"]) == ("first", "made by 0")
    assert found[0]["gather"] == ["", "rank"]
    assert found[0]["together"] == [28, "file"]
    assert found[0]["gradients"] == [[[2, 2], [2, 2]], [[1, 1], [1, 1]], None]
    # What has no gradient anywhere does not decay.
    assert found[0]["weights"] == pytest.approx([0.85, 0.85, 1.0])


ADOPT = """
import os
import torch
from torch import distributed
from lmcore.training.processes import start_processes

distributed.init_process_group("gloo")
for _ in range(2):
    with start_processes("cpu") as p:
        assert (p.rank, p.count) == (int(os.environ["RANK"]), 2)
        assert p.sum(torch.ones(1)).item() == 2
    assert distributed.is_initialized()
mesh = distributed.device_mesh.init_device_mesh("cpu", (1, 2), mesh_dim_names=("data", "model"))
with start_processes("cpu", mesh) as p:
    # Both hold parts of one model: they compute the same batch.
    assert (p.data_rank, p.data_count, p.count) == (0, 1, 2)
    assert p.agree(p.rank) == 0
distributed.destroy_process_group()
"""


def test_a_group_of_the_caller_is_adopted() -> None:
    workers.run(ADOPT, 2)


LOOP = """
import os, sys
from pathlib import Path
import torch
from lmcore.training.config import LoopConfig
from lmcore.training.folder import Recipe
from lmcore.training.loop import fit
from lmcore.training.processes import start_processes

class Walk:
    def __init__(self, processes): self.p, self.value, self.calls = processes, 0.0, []
    def step(self, step):
        self.value += float(self.p.sum(torch.rand(())))
        if step == int(sys.argv[2]) and self.p.rank == int(sys.argv[3]):
            os._exit(9)
        return {"loss": torch.tensor(float(self.p.rank)), "seen": torch.tensor(1 + self.p.rank)}
    def validate(self):  # with a collective: every process takes part
        return {"score": float(self.p.mean(torch.tensor(self.value))) + self.p.rank}
    def save_model(self, folder):
        self.p.mean(torch.zeros(1))
        (folder / f"part-{self.p.rank}").write_text(repr(self.value))
    def state_dict(self):
        self.p.mean(torch.zeros(1))
        return {"value": self.value}
    def load_state_dict(self, state): self.value = state["value"]

torch.set_num_threads(1)
with start_processes("cpu") as processes:
    config = LoopConfig(steps=9, validate_every_steps=3, save_every_seconds=0, metric="score")
    result = fit(Walk(processes), sys.argv[1], config, recipe=Recipe(config={}),
                 processes=processes, unit="seen")
    print(result.best_step, result.resumed_after, result.history[-1]["loss"],
          result.history[-1]["seen"])
"""


@pytest.mark.parametrize("killed", [0, 1])
def test_every_process_takes_part_in_everything(tmp_path: Path, killed: int) -> None:
    """And a run of two, one of which dies, goes on to the same numbers."""
    whole = workers.run(LOOP, 2, tmp_path / "whole", 0, 0)
    assert whole[0] == whole[1] == "9 0 0.5 9\n"
    dying = workers.start(LOOP, 2, tmp_path / "killed", 6, killed)
    for process in (dying[killed], dying[1 - killed]):
        if process is not dying[killed]:
            process.kill()
        process.communicate(timeout=120)
    assert dying[killed].returncode == 9
    again = workers.run(LOOP, 2, tmp_path / "killed", 0, 0)
    assert again[0].split()[0] == "9"
    assert int(again[0].split()[1]) >= 3
    for rank in range(2):
        one, two = (tmp_path / n / "best" / f"part-{rank}" for n in ("whole", "killed"))
        assert one.read_text() == two.read_text()


def test_the_lock_is_held_by_every_process(tmp_path: Path) -> None:
    """The first one dies; as long as the other lives, nobody else trains into the folder."""
    from lmcore.training.folder import RunFolder

    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    ready, done = os.pipe(), os.pipe()
    with first.lock():
        first.share_lock()
        if not (child := os.fork()):
            with RunFolder(tmp_path).lock(shared=True):
                os.write(ready[1], b"x")
                os.read(done[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        first._lock._file.close()  # type: ignore[union-attr]
        message = "another process is training into it"
        with pytest.raises(FileExistsError, match=message), second.lock():
            pass
        os.write(done[1], b"x")
        os.waitpid(child, 0)
    with second.lock():
        pass
