"""No process holds all moments of a model in shards, also while its state is saved and loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import workers
from lmcore.openba.training import OpenBARun
from lmcore.training import checkpoint
from tiny_runs import make_texts, make_tokenizer, small

# 2.5 million parameters, no matrix with a tenth of them.
SHAPE: dict[str, Any] = {
    "shape.hidden_size": 128, "shape.heads": 4, "shape.kv_channels": 32,
    "shape.ffn_hidden_size": 384, "shape.encoder_layers": 2, "shape.decoder_layers": 6,
    "shape.dropout": 0.0, "batch_size": 2, "micro_batch_size": 1,
}  # fmt: skip
FILE_BYTES = 1 << 20
# The bytes that torch asks for and gives back, in their order, are all tensors that live.
RUN = f"""
import hashlib, json, sys
from pathlib import Path
import torch
from torch.profiler import ProfilerActivity, profile
from lmcore.openba.training import OpenBARun
from lmcore.training import checkpoint
from lmcore.training.processes import start_processes
from tiny_runs import make_texts, make_tokenizer, small

torch.set_num_threads(1)
checkpoint._FILE_BYTES = {FILE_BYTES}
root = Path(sys.argv[1])
config = small(**{SHAPE!r}, **{{"device.sharding": "full"}})

def make():
    return OpenBARun(config, make_texts(), tokenizer=make_tokenizer(), processes=processes)

def watch(call):
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        call()
    events = watched.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    # A file that is mapped comes as one tensor; its pages are no memory of the process.
    mapped = (root / "alone/state.pt").stat().st_size
    peak = now = 0
    for _, change in changes:
        now += 0 if abs(change) == mapped else change
        peak = max(peak, now)
    return peak

def digest(run):
    found = hashlib.blake2b()
    for parameter in run.model.parameters():
        state = run.optimizer.adam.state[parameter]
        for value in (parameter.detach(), state["exp_avg"], state["exp_avg_sq"]):
            found.update(value.full_tensor().numpy().tobytes())
    return found.hexdigest()

def load(folder, run):
    state = checkpoint.load(folder, processes, lambda: {{"run": run.state_dict()}})
    run.load_state_dict(state["run"])

with start_processes("cpu") as processes:
    run = make()
    first = watch(lambda: load(root / "alone", run))
    found = {{"alone": first, "alone digest": digest(run)}}
    run.step(2)
    found["save"] = watch(
        lambda: checkpoint.save(root / "shared", {{"run": run.state_dict()}}, processes)
    )
    other = make()
    found["load"] = watch(lambda: load(root / "shared", other))
    states = other.optimizer.adam.state.values()
    found["own"] = sum(s[n].to_local().nbytes for s in states for n in ("exp_avg", "exp_avg_sq"))
    found["same"] = digest(run) == digest(other)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OpenBARun]:
    """A step of one process, and its state."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("states")
    run = OpenBARun(small(**SHAPE), make_texts(), tokenizer=make_tokenizer())
    run.step(1)
    for name in ("alone", "shared"):
        (folder / name).mkdir()
    checkpoint.save(folder / "alone", {"run": run.state_dict()})
    torch.set_num_threads(before)
    return folder, run


def test_no_process_holds_all_moments(alone: tuple[Path, OpenBARun]) -> None:
    """Neither from the state of one process, which is whole, nor from shards, nor to shards."""
    folder, run = alone
    count = sum(p.numel() for p in run.model.parameters())
    largest = max(p.numel() for p in run.model.parameters())
    assert largest < count / 10
    whole = 8 * count
    found = [json.loads(text.splitlines()[-1]) for text in workers.run(RUN, 2, folder)]
    assert found[0]["alone digest"] == found[1]["alone digest"]
    for each in found:
        assert each["same"]
        assert each["own"] == pytest.approx(whole / 2, rel=0.01)
        # Its own shards of weights and moments are three quarters of that.
        assert 0.7 * whole < each["load"] < 0.9 * whole
        assert 0.7 * whole < each["alone"] < 0.9 * whole
        assert each["save"] < 0.1 * whole


def test_shards_lie_in_files_that_are_made_one_after_the_other(
    alone: tuple[Path, OpenBARun],
) -> None:
    """Each of the two processes wrote its half, in files that memory has room for."""
    folder, run = alone
    bytes_ = 12 * sum(p.numel() for p in run.model.parameters())
    files = sorted((folder / "shared" / "shards").iterdir())
    for process in ("shard-00001", "shard-00002"):
        sizes = [file.stat().st_size for file in files if file.name.startswith(process)]
        assert len(sizes) > 10
        # The names and shapes of its tensors are a header.
        assert max(sizes) < FILE_BYTES + 50_000
        assert sum(sizes) == pytest.approx(bytes_ / 2, rel=0.05)
