"""Sharded models: sums of gradients, recomputation, generation, and states for more or fewer."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import workers

MODEL = """
import json, os, sys
from pathlib import Path
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from lmcore.training.average import WeightAverage
from lmcore.training.batches import ExampleBatches, share_rows
from lmcore.training.config import DeviceConfig, LoopConfig, OptimizerConfig
from lmcore.training.folder import Recipe
from lmcore.training.loop import fit
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import start_processes

torch.set_num_threads(1)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 16), nn.Linear(16, 8)
    def forward(self, x):
        return x + self.outer(self.inner(x).tanh())

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.norm = nn.LayerNorm(8)
    def forward(self, ids):
        x = self.table(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.table.weight.T  # tied

def make():
    torch.manual_seed(0)
    return Model()

def compute_loss(model, ids, whole, forwards):
    logits = model(ids)
    targets = ids.roll(1, 1)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    if forwards == 2:
        loss = loss + (logits.sum(-1) * model(ids.flip(1)).logsumexp(-1)).sum()
    return loss / whole

def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
"""

STEPS = (
    MODEL
    + """
found = {}
with start_processes("cpu") as p:
    for recompute in (False, True):
        for forwards in (1, 2):
            alone, shared = make(), make()
            config = DeviceConfig(sharding="full", recompute=recompute)
            p.shard(shared, shared.blocks, config)
            adam = OptimizerConfig(lr=0.01, clip_norm=0.5, weight_decay=0.1)
            one, all = Optimizer(alone, adam), Optimizer(shared, adam, processes=p)
            average = WeightAverage(shared.parameters(), 0.9)
            expected = WeightAverage(alone.parameters(), 0.9)
            for step in range(1, 6):
                torch.manual_seed(step)
                ids = torch.randint(0, 11, (5, 7))
                part = [slice(0, 1), slice(1, 5)][p.data_rank]  # unequal parts
                all.backward(compute_loss(shared, ids[part], 35, forwards))
                one.backward(compute_loss(alone, ids, 35, forwards))
                all.update(step), one.update(step)
                average.update(), expected.update()
            pairs = [*zip(shared.parameters(), alone.parameters(), strict=True),
                     *zip(average.values, expected.values, strict=True)]
            worst = max((whole(a) - b).abs().max().item() for a, b in pairs)
            found[f"{recompute} {forwards}"] = worst
            with average.swapped_into(shared):
                inside = [whole(w).clone() for w in shared.parameters()]
            for a, b in zip(inside, average.values, strict=True):
                assert torch.equal(a, whole(b))
    tied = make()
    tied.head = nn.Linear(8, 11, bias=False)
    tied.head.weight = tied.table.weight
    for blocks in ([tied.head], [tied.table]):
        try:
            p.shard(tied, blocks, DeviceConfig(sharding="full"))
        except ValueError as error:
            found[str(error)] = 0.0
    try:
        p.shard(make(), [], DeviceConfig(sharding="full", precision="float16"))
    except ValueError as error:
        found[str(error)] = 0.0
print(json.dumps(found))
"""
)


def test_steps_are_those_of_one_process() -> None:
    """Recomputed or not, with one forward pass before the backward pass or with two."""
    found = [json.loads(output) for output in workers.run(STEPS, 2)]
    for each in found:
        numbers = {k: v for k, v in each.items() if k[0] in "TF"}
        assert len(numbers) == 4
        assert max(numbers.values()) < 1e-6, numbers
        texts = [k for k in each if k not in numbers]
        assert [t.partition(" is tied to")[0] for t in texts if "tied" in t] == ["table.weight"]
        assert any(
            "precision must be bfloat16 or float32 where sharding is full" in t for t in texts
        )


TRAIN = (
    MODEL
    + """
class Run:
    def __init__(self, p, config):
        self.p, self.model = p, make()
        p.shard(self.model, self.model.blocks, config)
        self.optimizer = Optimizer(self.model, OptimizerConfig(lr=0.02), processes=p)
        self.average = WeightAverage(self.model.parameters(), 0.9)
        generator = torch.Generator().manual_seed(1)
        rows = torch.randint(0, 11, (10, 7), generator=generator)
        self.batches = ExampleBatches(rows, 4, 5, lambda found: {"ids": torch.stack(found)})
        self.losses = []
    def step(self, step):
        if step == stop and self.p.rank == self.p.count - 1:
            os._exit(9)
        ids = self.batches(step, share_rows(4, self.p))["ids"]
        loss = compute_loss(self.model, ids, 28, 2)
        self.optimizer.backward(loss)
        self.optimizer.update(step)
        self.average.update()
        total = self.p.sum(loss.detach().clone())
        self.losses.append([step, total.item()])
        return {"loss": total}
    def validate(self):
        return {"loss": self.losses[-1][1]}
    def save_model(self, folder):
        weights = {n: whole(w) for n, w in self.model.state_dict().items()}
        if self.p.is_first:
            torch.save(weights, folder / "model.pt")
    def state_dict(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict()}
    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])

folder, steps, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with start_processes("cpu") as p:
    config = DeviceConfig(sharding="full" if p.count > 1 else "none")
    loop = LoopConfig(steps=steps, metric="loss", metric_mode="min", save_every_seconds=0,
                      validate_every_steps=6)
    recipe = Recipe(config={"lr": 0.02, "steps": steps}, free=("config.steps",))
    run = Run(p, config)
    result = fit(run, folder, loop, recipe=recipe, processes=p)
    weights = {n: whole(w) for n, w in run.model.state_dict().items()}
    average = [whole(v) for v in run.average.values]
    if p.is_first:
        torch.save({"weights": weights, "average": average}, folder / "last.pt")
        print(json.dumps({"after": result.resumed_after, "losses": run.losses}))
"""
)


def read(output: list[str]) -> dict[str, object]:
    return json.loads(output[0])  # type: ignore[no-any-return]


def largest_difference(one: Path, other: Path) -> float:
    a, b = (torch.load(folder / "last.pt", weights_only=True) for folder in (one, other))
    pairs = [(a["weights"][name], b["weights"][name]) for name in a["weights"]]
    pairs += list(zip(a["average"], b["average"], strict=True))
    return max(float((x - y).abs().max()) for x, y in pairs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    """An unbroken run of two processes of 12 steps, and one that stopped after 6."""
    folder = tmp_path_factory.mktemp("runs")
    whole = read(workers.run(TRAIN, 2, folder / "whole", 12, 0))
    workers.run(TRAIN, 2, folder / "half", 6, 0)
    return folder, dict(whole["losses"])  # type: ignore[call-overload]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_run_goes_on_with_more_or_fewer_processes(
    runs: tuple[Path, dict[int, float]], tmp_path: Path, count: int
) -> None:
    folder, losses = runs
    shutil.copytree(folder / "half", tmp_path / "run", symlinks=True)
    found = read(workers.run(TRAIN, count, tmp_path / "run", 12, 0))
    assert found["after"] == 6
    again = dict(found["losses"])  # type: ignore[call-overload]
    assert list(again) == list(range(7, 13))
    # The first loss of all: what is loaded must be in use before a step of the optimizer.
    tolerance = 0 if count == 2 else 1e-6
    assert again[7] == pytest.approx(losses[7], rel=tolerance, abs=tolerance)
    assert again == pytest.approx({n: losses[n] for n in again}, rel=1e-5)
    assert largest_difference(tmp_path / "run", folder / "whole") <= tolerance


def test_a_run_of_one_goes_on_sharded(runs: tuple[Path, dict[int, float]], tmp_path: Path) -> None:
    folder, losses = runs
    workers.run(TRAIN, 1, tmp_path / "run", 6, 0)
    found = read(workers.run(TRAIN, 2, tmp_path / "run", 12, 0))
    assert dict(found["losses"])[7] == pytest.approx(losses[7], rel=1e-6)  # type: ignore[call-overload]
    assert largest_difference(tmp_path / "run", folder / "whole") <= 1e-6


def test_a_killed_process(runs: tuple[Path, dict[int, float]], tmp_path: Path) -> None:
    folder, _ = runs
    dying = workers.start(TRAIN, 2, tmp_path / "run", 12, 8)
    dying[1].communicate(timeout=120)
    dying[0].kill()
    dying[0].communicate(timeout=120)
    workers.run(TRAIN, 2, tmp_path / "run", 12, 0)
    assert largest_difference(tmp_path / "run", folder / "whole") == 0


def test_shards_hold_no_pickle_and_changed_ones_are_refused(
    runs: tuple[Path, dict[int, float]], tmp_path: Path
) -> None:
    folder, _ = runs
    shutil.copytree(folder / "half", tmp_path / "run", symlinks=True)
    state = tmp_path / "run" / "states" / "step-6"
    files = sorted(path.name for path in (state / "shards").iterdir())
    assert len(files) == 2
    assert all(name.endswith(".safetensors") for name in files)
    shard = state / "shards" / files[1]
    content = shard.read_bytes()
    for change in ("bit", "gone", "exchanged"):
        if change == "bit":
            shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif change == "gone":
            shard.unlink()
        else:
            shutil.copy(state / "shards" / files[0], shard)
        (process,) = workers.start(TRAIN, 1, tmp_path / "run", 12, 0)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert f"{shard}: " in errors.splitlines()[-1]


GENERATE = """
import json
import torch
from transformers import T5Config, T5ForConditionalGeneration
from lmcore.training.config import DeviceConfig, OptimizerConfig
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import start_processes

torch.set_num_threads(1)
config = T5Config(vocab_size=30, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_decoder_layers=2,
                  num_heads=4, dropout_rate=0.0, decoder_start_token_id=0)
def make():
    torch.manual_seed(0)
    return T5ForConditionalGeneration(config)

found = []
with start_processes("cpu") as p:
    alone, shared = make(), make()
    p.shard(shared, [*shared.encoder.block, *shared.decoder.block], DeviceConfig(sharding="full"))
    one = Optimizer(alone, OptimizerConfig(lr=0.01))
    all = Optimizer(shared, OptimizerConfig(lr=0.01), processes=p)
    torch.manual_seed(1)
    ids, labels = torch.randint(1, 30, (4, 6)), torch.randint(1, 30, (4, 5))
    rows = slice(2 * p.data_rank, 2 * p.data_rank + 2)
    for step in (1, 2, 3):
        for model in (shared, alone):
            model.eval()
            with torch.no_grad():
                found.append(model.generate(ids[rows], max_new_tokens=3 + p.rank).tolist())
            model.train()
        all.backward(shared(input_ids=ids[rows], labels=labels[rows]).loss / 2)
        one.backward(alone(input_ids=ids, labels=labels).loss)
        all.update(step), one.update(step)
print(json.dumps(found))
"""


def test_a_sharded_model_generates_before_and_after_steps() -> None:
    for output in workers.run(GENERATE, 2):
        found = json.loads(output)
        for shared, alone in zip(found[::2], found[1::2], strict=True):
            assert shared == alone
