"""What the documents say of the training step, recipes and benches is what the code does."""

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmcore.cli.commands import load
from lmcore.ops.negatives import SequenceSampler
from lmcore.recsys import evaluation, recommendation
from lmcore.recsys import losses as losses_module
from lmcore.recsys import run as run_module
from lmcore.recsys.data import Split, leave_one_out, make_interactions
from lmcore.recsys.mine import FalseNegativeMiner
from lmcore.recsys.recipes import RECIPES, TrainConfig, consistency
from lmcore.recsys.run import SequenceRun
from lmcore.recsys.start import StartSwitch, StepStart
from lmcore.recsys.teacher import EMATeacher
from lmcore.training.config import DeviceConfig, LoopConfig

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
UFNREC = (ROOT / "docs/papers/ufnrec.md").read_text(encoding="utf-8")


@pytest.fixture
def data() -> Split:
    rows = [np.random.default_rng(user).choice(20, 8, replace=False) + 1 for user in range(12)]
    return leave_one_out(make_interactions(np.arange(0, 97, 8), np.concatenate(rows), 20))


def test_parts_of_a_training_step(data: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the list under "A training step", after the start and with reversals."""
    part = ARCHITECTURE.partition("## A training step")[2].partition("```\n")[2]
    listed = re.findall(
        r"^(?:Optimizer\.update, then )?([\w.]+)", part.partition("```")[0], re.MULTILINE
    )
    config = replace(
        consistency(), max_length=6, hidden_size=8, batch_size=8, negatives=7, start=0, threshold=0,
        device=DeviceConfig(device="cpu"),
    )  # fmt: skip
    run = SequenceRun(config, data)
    for _ in range(4):
        run.step(1)
    called: list[str] = []

    def record(owner: Any, name: str, shown: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            called.append(shown)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    run.start.on = False
    record(SequenceSampler, "sample_packed", "SequenceSampler.sample_packed")
    for name in ("inject", "observe"):
        record(FalseNegativeMiner, name, f"FalseNegativeMiner.{name}")
    record(StartSwitch, "update", "StartSwitch.update")
    record(run.model, "forward_packed", "SequenceModel.forward_packed")
    record(run_module, "packed_logits", "packed_logits")
    record(EMATeacher, "teaching", "EMATeacher")
    record(losses_module, "ufn_loss", "ufn_loss")
    record(EMATeacher, "update", "EMATeacher.update")
    run.step(1)
    assert called == [name.rstrip(",") for name in listed]


def test_the_start_is_the_miners(data: Split) -> None:
    """`flag` of the paper is `FalseNegativeMiner.active`."""
    assert "| `flag` | `FalseNegativeMiner.active` |" in UFNREC
    config = replace(
        consistency(),
        max_length=6,
        hidden_size=8,
        batch_size=4,
        device=DeviceConfig(device="cpu"),
        start=4,
    )
    run = SequenceRun(config, data)
    assert run.miner is not None
    assert run.miner.start is run.start
    assert run.start.rule == StepStart(4)
    seen = []
    for number in range(1, 7):
        run.step(number)
        seen.append(run.miner.active)
        assert (run.miner.stats().hard_count > 0) == run.miner.active
    assert seen == [False] * 3 + [True] * 3
    # A state that was branched from another run's brings the miner of a loop of its own.
    other = SequenceRun(config, data)
    other.step(1)
    state = other.state_dict()
    state["miner"] = FalseNegativeMiner().state_dict()
    before = SequenceRun(config, data)
    before.load_state_dict(state)
    assert before.miner is not None
    assert not before.miner.active


def test_sizes_of_blocks() -> None:
    found = re.search(
        r"fit into (\d+) MiB, on a GPU into (\d+) MiB, at least (\d+) and at most ([\d,]+);",
        ARCHITECTURE,
    )
    assert found is not None
    numbers = [int(number.replace(",", "")) for number in found.groups()]
    room = [evaluation._BLOCK_BYTES[place] >> 20 for place in ("cpu", "other")]
    assert numbers == [*room, *evaluation._USERS]
    found = re.search(r"windows of (\d+) users at a time, .* fit into (\d+) MiB", ARCHITECTURE)
    assert found is not None
    assert [int(n) for n in found.groups()] == [
        recommendation._USERS,
        recommendation._SCORE_BYTES >> 20,
    ]


def test_options_that_are_settings() -> None:
    """The settings that `recsys train` takes as options of their own are those listed."""
    line = next(line for line in ARCHITECTURE.splitlines() if "once more, as options" in line)
    listed = re.findall(r"`--(\w+)`", line)
    options = [parameter.name for parameter in load("recsys").commands["train"].params]
    kinds = (TrainConfig, LoopConfig, DeviceConfig)
    settings = {field.name for kind in kinds for field in fields(kind)}
    assert listed == [name for name in options if name in settings]


def test_recipes_in_the_documents() -> None:
    guide = (ROOT / "docs/recsys.md").read_text(encoding="utf-8")
    section = UFNREC.partition("## Recipes")[2].partition("\n## ")[0]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("## [0.1.0]")
    for name, recipe in RECIPES.items():
        assert f"| `{name}` |" in guide
        assert f"`{name}`" in section
        assert f"`{name}`" in changelog[0]
        if name != "patient" and not name.endswith("_mined"):
            assert recipe().start == "epoch_loss"
    patient = RECIPES["patient"]()
    assert f"`threshold={patient.threshold}, start={patient.start}`" in section
    assert "UFNRec" not in changelog[2]
