"""The loop over epochs: what is written, when, and how a run goes on."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lmcore.training.loop import Fit, find_device, fit, start_processes

SCORES = [0.1, 0.3, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1]


class Walk:
    """A number that random steps change; its score in epoch e is SCORES[e - 1]."""

    steps_per_epoch = 3

    def __init__(self, stop: Callable[[int, int], None] | None = None) -> None:
        self.value, self.epoch = 0.0, 0
        self.stop = stop

    def step(self, epoch: int, step: int) -> Tensor:
        if self.stop is not None:
            self.stop(epoch, step)
        move = torch.rand(())
        self.value += float(move)
        return move

    def end_epoch(self, epoch: int, loss_sum: float) -> dict[str, Any]:
        self.epoch = epoch
        return {"value": self.value}

    def validate(self) -> dict[str, float]:
        return {"score": SCORES[self.epoch - 1]}

    def save_model(self, folder: Path) -> None:
        (folder / "model").write_text(repr(self.value))

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.epoch = state["value"], state["epoch"]


def run(folder: Path, walk: Walk | None = None, **options: Any) -> Fit:
    settings: dict[str, Any] = {
        "recipe": {"config": {"lr": 1}},
        "epochs": 8,
        "seed": 3,
        "metric": "score",
        "save_seconds": 0.0,
    }
    return fit(walk or Walk(), folder, **{**settings, **options})


def read(folder: Path) -> dict[str, Any]:
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for record in log:
        del record["seconds"], record["validation_seconds"]
    return {"model": (folder / "model").read_text(), "log": log}


def test_files_and_best_epoch(tmp_path: Path) -> None:
    result = run(tmp_path / "new" / "run")
    assert (result.best_epoch, result.best_value, result.resumed_after) == (5, 0.4, 0)
    files = sorted(path.name for path in (tmp_path / "new" / "run").iterdir())
    assert files == ["checkpoint.pt", "log.jsonl", "model", "recipe.json"]
    found = read(tmp_path / "new" / "run")
    assert found["model"] == repr(result.history[4]["value"])
    assert [record["epoch"] for record in found["log"]] == list(range(1, 9))
    assert [record["step"] for record in found["log"]] == list(range(3, 27, 3))
    assert [record["best_epoch"] for record in found["log"]] == [1, 2, 2, 2, 5, 5, 5, 5]
    total = sum(record["loss"] * 3 for record in found["log"])
    assert math.isclose(total, result.history[-1]["value"], rel_tol=1e-6)


def test_validation_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    result = run(tmp_path, eval_every=3)
    assert [r["epoch"] for r in result.history if "metrics" in r] == [3, 6, 8]
    assert result.best_epoch == 3


def test_patience(tmp_path: Path) -> None:
    result = run(tmp_path, patience=2)
    assert (len(result.history), result.best_epoch) == (4, 2)
    assert len(run(tmp_path, patience=2).history) == 4


@pytest.mark.parametrize("epoch", range(1, 9))
@pytest.mark.parametrize("step", [0, 2])
def test_a_killed_run_ends_like_an_unbroken_one(tmp_path: Path, epoch: int, step: int) -> None:
    def stop(at_epoch: int, at_step: int) -> None:
        if (at_epoch, at_step) == (epoch, step):
            raise KeyboardInterrupt

    unbroken = run(tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Walk(stop))
    resumed = run(tmp_path / "killed")
    assert resumed.resumed_after == epoch - 1
    assert (resumed.best_epoch, resumed.best_value) == (unbroken.best_epoch, unbroken.best_value)
    assert read(tmp_path / "killed") == read(tmp_path / "unbroken")


@pytest.mark.parametrize("name", ["_write_log", "save_state", "save_folder"])
def test_killed_between_two_files(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmcore.training import loop

    run(tmp_path / "unbroken")
    original, calls = getattr(loop, name), 0

    def write(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop, name, write)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed")
    run(tmp_path / "killed")
    assert read(tmp_path / "killed") == read(tmp_path / "unbroken")


def test_the_log_of_a_finished_run_is_that_of_its_state(tmp_path: Path) -> None:
    run(tmp_path / "run")
    before = read(tmp_path / "run")
    with (tmp_path / "run" / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"epoch": 9, "seconds": 0, "validation_seconds": 0}) + "\n")
    assert run(tmp_path / "run").resumed_after == 8
    assert read(tmp_path / "run") == before


def test_the_state_is_saved_now_and_then(tmp_path: Path) -> None:
    """A killed run does all epochs after the saved one again, and its log shrinks first."""

    def stop(epoch: int, step: int) -> None:
        if epoch == 6:
            raise KeyboardInterrupt

    run(tmp_path / "unbroken", save_seconds=1e9)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Walk(stop), save_seconds=1e9)
    assert not (tmp_path / "killed" / "checkpoint.pt").exists()
    assert len(read(tmp_path / "killed")["log"]) == 5
    assert run(tmp_path / "killed", epochs=4).resumed_after == 0
    assert run(tmp_path / "killed", save_seconds=1e9).resumed_after == 4
    assert read(tmp_path / "killed") == read(tmp_path / "unbroken")


def test_more_epochs_go_on(tmp_path: Path) -> None:
    run(tmp_path / "short", epochs=4)
    assert run(tmp_path / "short", epochs=8).resumed_after == 4
    run(tmp_path / "long")
    assert read(tmp_path / "short") == read(tmp_path / "long")


def test_a_finished_run_stays(tmp_path: Path) -> None:
    first = run(tmp_path)

    def fail(epoch: int, step: int) -> None:
        raise AssertionError

    second = run(tmp_path, Walk(fail))
    assert second.resumed_after == 8
    assert second.history == first.history


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    before = read(tmp_path)
    with pytest.raises(FileExistsError, match=r"config.lr is 1 there and 2 here"):
        run(tmp_path, recipe={"config": {"lr": 2}})
    with pytest.raises(FileExistsError, match=r"data is null there and 5 here"):
        run(tmp_path, recipe={"config": {"lr": 1}, "data": 5})
    assert read(tmp_path) == before
    run(tmp_path, epochs=1, recipe={"config": {"lr": 1, "threads": 2, "device": "cpu"}})
    assert run(tmp_path, recipe={"config": {"lr": 2}}, resume=False).resumed_after == 0


def test_a_run_without_an_epoch_does_not_bar_its_folder(tmp_path: Path) -> None:
    def stop(epoch: int, step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Walk(stop))
    assert run(tmp_path, recipe={"config": {"lr": 2}}).resumed_after == 0
    assert json.loads((tmp_path / "recipe.json").read_text()) == {"config": {"lr": 2}}


def test_starting_anew_forgets_the_log(tmp_path: Path) -> None:
    def stop(epoch: int, step: int) -> None:
        raise KeyboardInterrupt

    run(tmp_path, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Walk(stop), resume=False)
    assert not (tmp_path / "log.jsonl").exists()


def test_starting_anew_removes_the_old_model_first(tmp_path: Path) -> None:
    """A killed run leaves no model that seems to be of its recipe."""

    def stop(epoch: int, step: int) -> None:
        raise KeyboardInterrupt

    run(tmp_path, epochs=2)
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Walk(stop), recipe={"config": {"lr": 2}}, resume=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "recipe.json"]


@pytest.mark.parametrize("killed_at", ["unlink", "write_text"])
def test_the_old_model_goes_before_the_new_recipe_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    from lmcore.training import loop

    run(tmp_path, epochs=2)
    owner = Path if killed_at == "unlink" else loop
    original = getattr(owner, killed_at)

    def kill(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name in ("model", "recipe.json"):
            raise KeyboardInterrupt
        original(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(owner, killed_at, kill)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, recipe={"config": {"lr": 2}}, resume=False)
    assert json.loads((tmp_path / "recipe.json").read_text()) == {"config": {"lr": 1}}


def test_a_model_of_no_run_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("somebody's")
    with pytest.raises(FileExistsError, match="holds model of another run; choose another folder"):
        run(tmp_path, epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_text() == "somebody's"
    assert run(tmp_path, epochs=1, resume=False).best_epoch == 1


def test_one_process_at_a_time(tmp_path: Path) -> None:
    refused = []

    def start_another(epoch: int, step: int) -> None:
        if (epoch, step) == (2, 1):
            for resume in (True, False):
                with pytest.raises(FileExistsError, match="another process is training into it"):
                    run(tmp_path / "run", resume=resume)
                refused.append(resume)

    first = run(tmp_path / "run", Walk(start_another), recipe={"config": {"lr": 1}})
    assert refused == [True, False]
    alone = run(tmp_path / "alone")
    assert (first.best_epoch, first.best_value) == (alone.best_epoch, alone.best_value)
    assert read(tmp_path / "run") == read(tmp_path / "alone")
    # What a kill leaves is not locked.
    (tmp_path / "run" / ".lock").touch()
    assert run(tmp_path / "run").resumed_after == 8
    assert not (tmp_path / "run" / ".lock").exists()


def test_what_killed_writes_left_is_removed(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    before = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".lmcore-model").mkdir()
    (tmp_path / ".lmcore-model" / "weights").write_text("half")
    (tmp_path / ".lmcore-log").write_text("half")
    (tmp_path / ".lmcore-link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    run(tmp_path, epochs=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "elsewhere"])


def test_a_run_does_not_end_before_the_epoch_of_its_model(tmp_path: Path) -> None:
    """Killed in epoch 6: the model is that of epoch 5, the state that of epoch 3."""

    def stop(epoch: int, step: int) -> None:
        if epoch == 6:
            raise KeyboardInterrupt

    run(tmp_path / "run", epochs=3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Walk(stop), save_seconds=1e9)
    recipe = {"config": {"lr": 1, "epochs": 8}}
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(recipe))
    before = read(tmp_path / "run")
    message = "holds the model of epoch 5 and the state of epoch 3: epochs must be at least 5"
    for epochs in (3, 4):
        with pytest.raises(ValueError, match=message):
            run(tmp_path / "run", epochs=epochs)
    assert read(tmp_path / "run") == before
    assert json.loads((tmp_path / "run" / "recipe.json").read_text()) == recipe
    assert run(tmp_path / "run", epochs=5).best_epoch == 5
    run(tmp_path / "unbroken", epochs=5)
    assert read(tmp_path / "run") == read(tmp_path / "unbroken")


def test_a_metric_that_is_no_number(tmp_path: Path) -> None:
    class Broken(Walk):
        def validate(self) -> dict[str, float]:
            return {"score": math.nan}

    with pytest.raises(FloatingPointError, match="score of epoch 1 is nan"):
        run(tmp_path, Broken())
    assert not (tmp_path / "model").exists()


def test_data_may_move(tmp_path: Path) -> None:
    run(tmp_path, epochs=1, recipe={"data": {"path": "a", "users": 3}})
    moved = {"data": {"path": "b", "users": 3}}
    assert run(tmp_path, epochs=2, recipe=moved).resumed_after == 1
    assert json.loads((tmp_path / "recipe.json").read_text()) == moved


def test_a_state_without_its_recipe_is_refused(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(FileExistsError, match=r"no recipe\.json"):
        run(tmp_path)
    (tmp_path / "recipe.json").write_text("junk")
    with pytest.raises(ValueError, match=r"recipe\.json: not a recipe: "):
        run(tmp_path)


def test_bad_loss_metric_and_numbers(tmp_path: Path) -> None:
    class Diverged(Walk):
        def step(self, epoch: int, step: int) -> Tensor:
            return torch.tensor(math.nan)

    with pytest.raises(FloatingPointError, match="the loss of epoch 1 is nan"):
        run(tmp_path / "a", Diverged())
    with pytest.raises(ValueError, match="validation has no metric 'other'; there are score"):
        run(tmp_path / "b", metric="other")
    for name in ("epochs", "eval_every", "patience"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1: got 0"):
            run(tmp_path / "c", **{name: 0})
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        run(tmp_path / "file")


def test_without_validation_data_the_last_model_is_kept(tmp_path: Path) -> None:
    class Blind(Walk):
        def validate(self) -> dict[str, float]:
            return {}

    result = run(tmp_path, Blind())
    assert (result.best_epoch, result.best_value) == (8, None)
    assert read(tmp_path)["model"] == repr(result.history[-1]["value"])


def test_one_process_alone() -> None:
    with start_processes("cpu") as processes:
        assert processes.is_first
        part = torch.arange(3.0)
        assert processes.join(part, [3]) is part
        assert processes.agree("x") == "x"


def test_devices() -> None:
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda: got 'fast'"):
        find_device("fast")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch finds no GPU"):
            find_device("cuda")
