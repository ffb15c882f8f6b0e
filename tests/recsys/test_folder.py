"""A run from its folder: model, ids, data and mined pairs, or one error that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import SMALL, run_here
from lmcore._manifest import find_model, write_manifest
from lmcore.recsys.data import leave_one_out
from lmcore.recsys.evaluation import evaluate
from lmcore.recsys.folder import load_run, read_mined_pairs
from lmcore.recsys.ids import IdMap
from lmcore.recsys.loading import load_model
from lmcore.recsys.mine import FalseNegativeMiner
from lmcore.recsys.reading import read_interactions
from lmcore.training.checkpoint import load_state, save_state
from lmcore.training.folder import RunFolder

ITEMS = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ids with gaps, and a row that cannot be used."""
    generator = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("data") / "pairs.txt"
    rows = [generator.choice(ITEMS, 6, replace=False) for _ in range(20)]
    lines = [f"{10 * user} {3 * item + 5}\n" for user, row in enumerate(rows, 1) for item in row]
    path.write_text("".join([*lines, "10 x\n"]))
    return path


def train(data: Path, out: Path, recipe: str = "reversal") -> Path:
    arguments = ["--data", data, "--out", out, "--epochs", 6, "--skip-bad-rows", *SMALL]
    changes = ["--set", "start=1", "--set", "optimizer.lr=0.01"]
    assert run_here("recsys", "train", recipe, *arguments, *changes)[0] == 0
    return out


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def find_state(folder: Path) -> Path:
    run = RunFolder(folder)
    return run.find("states", run.states[-1]) / "state.pt"


def sign(folder: Path) -> None:
    """Digests of a state or a model written anew, as by somebody who knows how."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("files", "digest"):
        del manifest[name]
    write_manifest(folder, **manifest)


# A run that is whole.


def test_a_run_has_its_model_ids_and_data(trained: Path, data: Path) -> None:
    run = load_run(trained, device="cpu")
    assert run.interactions.report.skipped == 1  # read as the training did
    assert run.interactions.item_ids.tolist() == [3 * item + 5 for item in range(ITEMS)]
    assert run.interactions.user_ids.tolist() == [10 * user for user in range(1, 21)]
    assert not run.model.training
    same = read_interactions(data, skip_bad_rows=True)
    expected = evaluate(load_model(trained, device="cpu"), leave_one_out(same))
    assert evaluate(run.model, leave_one_out(run.interactions)) == expected


def test_other_data_take_the_ids_of_the_model(trained: Path, tmp_path: Path) -> None:
    """Numbered by itself, a file with two of the items would give them the ids 1 and 2."""
    part = tmp_path / "part.txt"
    part.write_text("7 38\n7 5\n")
    run = load_run(trained, data=part)
    assert run.interactions.items.tolist() == [12, 1]
    part.write_text("7 38\n7 6\n")
    with pytest.raises(ValueError, match=r"part\.txt:2: item is not in the id map: got 6"):
        load_run(trained, data=part)
    assert load_run(trained, data=part, skip_bad_rows=True).interactions.report.skipped == 1


def test_weights_without_a_folder(trained: Path, tmp_path: Path) -> None:
    weights, rows = tmp_path / "sasrec.pth", tmp_path / "rows.txt"
    torch.save(load_model(trained, device="cpu").state_dict(), weights)
    rows.write_text("1 2\n1 12\n")
    assert load_run(weights, data=rows).interactions.items.tolist() == [2, 12]
    with pytest.raises(ValueError, match=r"holds no recipe\.json that names the data"):
        load_run(weights)


def test_mined_pairs(trained: Path) -> None:
    state = load_state(find_state(trained))["run"]["miner"]
    for threshold in (0, 2, 5):
        miner = FalseNegativeMiner(threshold=threshold)
        miner.load_state_dict(state)
        found = read_mined_pairs(trained, threshold)
        assert found.tolist() == miner.mined_pairs().tolist()
        keys = state["count_keys"][state["counts"] > threshold]
        assert {tuple(pair) for pair in found.tolist()} == {
            (int(key) >> 40, int(key) & 0xFFFFFFFF) for key in keys
        }
    assert len(read_mined_pairs(trained, 0)) > len(read_mined_pairs(trained)) > 0
    assert read_mined_pairs(trained).tolist() == read_mined_pairs(trained, 5).tolist()


def test_runs_without_pairs(data: Path, tmp_path: Path) -> None:
    plain = train(data, tmp_path / "plain", "plain")
    with pytest.raises(ValueError, match=r"state\.pt: the run did not mine"):
        read_mined_pairs(plain)
    shown = train(data, tmp_path / "shown", "representation")
    with pytest.raises(ValueError, match=r"recipe\.json: the run reversed no labels: say a thresh"):
        read_mined_pairs(shown)
    assert len(read_mined_pairs(shown, 0)) > 0


# Folders that are none, or not whole.


def test_wrong_folders(tmp_path: Path, data: Path) -> None:
    for place in (tmp_path, tmp_path / "none", data):
        with pytest.raises(ValueError, match=r": holds no state of a run"):
            read_mined_pairs(place)
        with pytest.raises(ValueError, match=r"names the data|none: no such file or folder"):
            load_run(place)
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"no such file, or a folder without config\.json"):
            load_run(place, data=data)
    with pytest.raises(ValueError, match=r"pairs\.txt"):
        load_run(data, data=data)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "recipe.json"])
def test_missing_files(folder: Path, name: str) -> None:
    (folder / name if name == "recipe.json" else find_model(folder) / name).unlink()
    with pytest.raises((ValueError, OSError), match=name):
        load_run(folder)


def test_a_folder_without_an_id_map(folder: Path, data: Path) -> None:
    """Of a run it is missing; as of `save_pretrained`, ids are the rows of the table."""
    model = find_model(folder)
    (model / "id_map.json").unlink()
    with pytest.raises(ValueError, match=r"id_map\.json: is missing"):
        load_run(folder, data=data)
    sign(model)
    with pytest.raises(ValueError, match=r"run: holds a run without its id_map\.json"):
        load_run(folder, data=data)
    with pytest.raises(ValueError, match=r"pairs\.txt:\d+: item is not in the id map"):
        load_run(model, data=data)


def test_data_that_are_gone(folder: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.txt"
    change_json(folder / "recipe.json", lambda recipe: recipe["data"].update(path=str(gone)))
    with pytest.raises(ValueError, match=r"recipe\.json: the data .*gone\.txt is not there"):
        load_run(folder)


# Files that were tampered with.


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not an id map"),
        ("[]", "an id map is an object: got list"),
        ('{"users": 20, "items": 11}', "holds 11 items, and the model has 12"),
        ('{"users": 20, "items": 16777216}', "and the model has 12"),
        ('{"users": 20, "items": [1, 1]}', "items must be a number"),
        ('{"users": 20, "items": 12, "items": 12}', "stands twice"),
        ("[" * 200_000, "nested too deeply"),
    ],
    ids=lambda value: value[:30],
)
def test_broken_id_maps(folder: Path, content: str, problem: str) -> None:
    model = find_model(folder)
    (model / "id_map.json").write_text(content)
    with pytest.raises(ValueError, match=r"id_map\.json: has changed"):
        load_run(folder)
    sign(model)
    with pytest.raises(ValueError, match=problem) as caught:
        load_run(folder)
    assert str(caught.value).startswith(f"{model / 'id_map.json'}: ")


@pytest.mark.parametrize(
    "source",
    [None, 1, [], {}, {"path": 3}, {"path": None}, {"path": "a", "format": 1},
     {"path": "a", "skip_bad_rows": "no"}],
    ids=str,
)  # fmt: skip
def test_broken_recipes(folder: Path, source: Any) -> None:
    change_json(folder / "recipe.json", lambda recipe: recipe.update(data=source))
    with pytest.raises(ValueError, match="data") as caught:
        load_run(folder)
    assert str(caught.value).startswith(f"{folder / 'recipe.json'}: ")


@pytest.mark.parametrize("value", ["5", -1, 2.5, True, [5], 2**40], ids=str)
def test_broken_thresholds(folder: Path, value: Any) -> None:
    change_json(folder / "recipe.json", lambda recipe: recipe["config"].update(threshold=value))
    with pytest.raises(ValueError, match=r"config\.threshold is") as caught:
        read_mined_pairs(folder)
    assert str(caught.value).startswith(f"{folder / 'recipe.json'}: ")
    assert len(read_mined_pairs(folder, 5))  # what is said is not looked for


STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no run": lambda s: s.pop("run"),
    "a run that is none": lambda s: s.update(run=3),
    "no miner": lambda s: s["run"].pop("miner"),
    "a miner that is none": lambda s: s["run"].update(miner=[1]),
    "no keys": lambda s: s["run"]["miner"].pop("count_keys"),
    "fewer keys": lambda s: s["run"]["miner"].update(
        count_keys=s["run"]["miner"]["count_keys"][1:]
    ),
    "turned keys": lambda s: s["run"]["miner"].update(
        count_keys=s["run"]["miner"]["count_keys"][::-1].copy()
    ),
    "counts of another type": lambda s: s["run"]["miner"].update(counts=np.zeros(3)),
}


@pytest.mark.parametrize("name", STATES)
def test_broken_states(folder: Path, name: str) -> None:
    file = find_state(folder)
    state = load_state(file)
    STATES[name](state)
    save_state(file, state)
    with pytest.raises(ValueError, match=r"state\.pt: has changed"):
        read_mined_pairs(folder)
    sign(file.parent)
    with pytest.raises(ValueError, match="not the state of a run") as caught:
        read_mined_pairs(folder)
    assert str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize("content", [b"", b"junk" * 50, 4, 1000])
def test_states_that_are_cut(folder: Path, content: bytes | int) -> None:
    file = find_state(folder)
    file.write_bytes(file.read_bytes()[:content] if isinstance(content, int) else content)
    sign(file.parent)
    with pytest.raises(ValueError, match="not the state of a run") as caught:
        read_mined_pairs(folder)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_state_that_is_missing(folder: Path) -> None:
    shutil.rmtree(folder / "states")
    with pytest.raises(ValueError, match="holds no state of a run"):
        read_mined_pairs(folder)


def test_ids_are_the_original_ones(trained: Path, data: Path) -> None:
    """A mined item is none that its user has in the training part."""
    ids = IdMap.load(find_model(trained) / "id_map.json")
    split = leave_one_out(read_interactions(data, skip_bad_rows=True))
    for user, item in read_mined_pairs(trained, 0).tolist():
        first, last = split.train_offsets[user - 1 : user + 1]
        assert item not in split.train_items[first:last]
        assert int(ids.users[user - 1]) % 10 == 0
        assert (int(ids.items[item - 1]) - 5) % 3 == 0
