"""A recommender on a made-up world whose tastes are known: training, ranks, mined negatives."""

import tempfile
from pathlib import Path

import torch

from lmcore.recsys.data import leave_one_out, make_interactions
from lmcore.recsys.evaluation import evaluate
from lmcore.recsys.folder import read_mined_pairs
from lmcore.recsys.loading import load_model
from lmcore.recsys.recipes import consistency
from lmcore.recsys.recommendation import recommend
from lmcore.recsys.training import train
from lmcore.training.config import change
from lmcore.worlds.recsys import World, make_world

# The authors' rule counts epochs, which are short here: mining starts at a step instead.
CHANGES = {
    "hidden_size": 32, "max_length": 10, "dropout": 0.2, "batch_size": 64, "negatives": 50,
    "epochs": 30, "start": 200, "optimizer.lr": 3e-3, "device.threads": 1, "device.device": "cpu",
}  # fmt: skip
CONFIG = change(consistency(), CHANGES)


def share_of_liked(world: World, folder: Path) -> float:
    """The share of the negatives with reversed labels that their users like in truth."""
    users, items = read_mined_pairs(folder).T
    return float(world.likes(users, items).mean())


def main() -> None:
    torch.set_num_threads(1)
    world = make_world(seed=0, users=800, items=300)
    data = leave_one_out(make_interactions(world.offsets, world.items, world.item_count))
    with tempfile.TemporaryDirectory() as folder:
        result = train(CONFIG, data, folder)
        model = load_model(folder, device="cpu")
        print(f"{result.epochs} epochs, best in validation: epoch {result.best_epoch}")
        for name, value in evaluate(model, data).metrics.items():
            print(f"  {name:8}{value:.3f}")
        best = next(recommend(model, data.interactions, [1], count=3))
        print("user 1 may like", *(f"item {item}" for item, _ in best.items))
        print(f"mined negatives that are liked: {share_of_liked(world, Path(folder)):.1%}")
        print(f"random ones: {world.base_rate:.1%}")


if __name__ == "__main__":
    main()
