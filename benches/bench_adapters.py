"""An epoch of RecTools' SASRec with its own sampler, with ours, and with ours and the miner.

It runs where RecTools is installed, such as the environment that `.ci/run` makes for the adapters,
on Beauty of `LMCORE_DATA` or a named file: lines of a user and an item in the order of time.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from timing import make_row, print_conditions, save

if importlib.util.find_spec("rectools") is None:
    print("RecTools is not installed: its environment is tests/adapters/requirements.txt")
    sys.exit()
warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples/adapters"))

import pandas as pd  # noqa: E402
import pytorch_lightning  # noqa: E402
import torch  # noqa: E402
from rectools import Columns  # noqa: E402
from rectools.dataset import Dataset  # noqa: E402
from rectools.models import SASRecModel  # noqa: E402
from rectools.models.nn.transformers.sasrec import SASRecDataPreparator  # noqa: E402
from ufn_in_rectools import UFNBatches, UFNModule  # noqa: E402

LENGTH, NEGATIVES, BATCH = 50, 100, 128
OWN = "RecTools' sampler"
CONTENDERS: dict[str, dict[str, Any]] = {
    OWN: {"data_preparator_type": SASRecDataPreparator},
    "our sampler": {"data_preparator_type": UFNBatches},
    "our sampler and miner": {
        "data_preparator_type": UFNBatches,
        "lightning_module_type": UFNModule,
    },
}


def read(file: Path) -> Dataset:
    """Returns the interactions of a file whose rows are in the order of time."""
    pairs = np.loadtxt(file, dtype=np.int64)
    times = pd.Timestamp(2024, 1, 1) + pd.to_timedelta(np.arange(len(pairs)), unit="s")
    columns = {Columns.User: pairs[:, 0], Columns.Item: pairs[:, 1], Columns.Datetime: times}
    return Dataset.construct(pd.DataFrame({**columns, Columns.Weight: 1.0}))


def make_model(data: Dataset, **settings: Any) -> SASRecModel:
    """Returns a model whose batches are made, not yet trained."""
    pytorch_lightning.seed_everything(0, verbose=False)
    shape = {"n_blocks": 2, "n_heads": 1, "n_factors": 50, "session_max_len": LENGTH}
    loop = {"batch_size": BATCH, "loss": "BCE", "n_negatives": NEGATIVES, "dropout_rate": 0.5}
    model = SASRecModel(**shape, **loop, **settings)
    model._build_model_from_dataset(data)
    return model


def check(models: dict[str, SASRecModel]) -> None:
    """Asserts equal shapes and windows and valid negatives, and prints how many are false."""
    windows = {}
    for name, model in models.items():
        drawn = false = positive = 0
        seen = set()
        for batch in model.data_preparator.get_dataloader_train():
            x, y, negatives = (batch[key].numpy() for key in ("x", "y", "negatives"))
            assert negatives.shape == (*y.shape, NEGATIVES), name
            for k in range(len(x)):
                valid = y[k] != 0
                seen.add((x[k].tobytes(), y[k].tobytes()))
                own = np.union1d(x[k], y[k])
                found = negatives[k][valid]
                assert found.min() >= 1, name
                assert found.max() < model.data_preparator.item_id_map.size, name
                drawn += found.size
                false += int(np.isin(found, own).sum())
                positive += int((found == y[k][valid][:, None]).sum())
        windows[name] = seen
        print(
            f"{name}: {drawn:,} negatives, {false:,} ({false / drawn:.3%}) in the user's window, "
            f"{positive:,} of them the position's own positive"
        )
        assert name == OWN or false == 0, name
    assert all(seen == windows[OWN] for seen in windows.values())


def make_epoch(model: SASRecModel, steps: int | None) -> Callable[[], float]:
    """Returns what trains for one epoch on one thread, and gives its milliseconds of CPU time."""
    loader = model.data_preparator.get_dataloader_train()

    def run() -> float:
        trainer = pytorch_lightning.Trainer(
            max_epochs=1,
            limit_train_batches=steps,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        started = time.process_time()
        trainer.fit(model.lightning_model, loader)
        return 1000 * (time.process_time() - started)

    return run


def main() -> None:
    """Checks batches, then lets epochs take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    beauty = Path(os.environ.get("LMCORE_DATA", ""), "recsys/seqdistill_Beauty.txt")
    parser.add_argument("file", type=Path, nargs="?", default=beauty)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="of an epoch; all by default")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    print_conditions()
    torch.set_num_threads(1)
    data = read(arguments.file)
    models = {name: make_model(data, **settings) for name, settings in CONTENDERS.items()}
    check(models)
    epochs = {name: make_epoch(model, arguments.steps) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(arguments.rounds + 1):
        for name, run in epochs.items():
            taken = run()
            if round_:  # the first one warms up
                times[name].append(taken)
    part = "an epoch" if arguments.steps is None else f"{arguments.steps} steps"
    case = f"{part} of {arguments.file.stem}, {BATCH} x {LENGTH} x {NEGATIVES}"
    print("stats of the miner:", models["our sampler and miner"].lightning_model.miner.stats())
    rows = [
        make_row("adapters", case, (OWN, times[OWN]), (name, times[name]), ">= 0.95x")
        for name in models
        if name != OWN
    ]
    if arguments.save:
        save("adapters", rows)


if __name__ == "__main__":
    main()
