"""The loop: what is written, when, and how a run goes on."""

import json
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lmcore._manifest import check_manifest, find_model, write_manifest
from lmcore.training import loop
from lmcore.training.config import LoopConfig
from lmcore.training.folder import Recipe
from lmcore.training.loop import Fit, fit
from lmcore.training.processes import Processes
from lmcore.training.seeding import seed_torch

# What `fit` takes beside its settings.
OTHERS = ("resume", "unit", "progress", "processes")
SCORES = [0.1, 0.3, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1]


class Walk:
    """A number that random steps change; its score after step 3 n is SCORES[n - 1]."""

    def __init__(self, stop: Callable[[int], None] | None = None) -> None:
        self.value, self.done = 0.0, 0
        self.stop = stop

    def step(self, step: int) -> Mapping[str, Tensor]:
        if self.stop is not None:
            self.stop(step)
        assert step == self.done + 1
        move = torch.rand(())
        self.value += float(move)
        self.done = step
        return {"loss": move, "seen": torch.tensor(2), "done": torch.tensor(step)}

    def validate(self) -> dict[str, float]:
        return {"score": SCORES[self.done // 3 - 1]}

    def save_model(self, folder: Path) -> None:
        (folder / "model").write_text(repr(self.value))
        (folder / "parts").mkdir()
        (folder / "parts" / "one").write_text(repr(self.done))

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.value, self.done = state["value"], state["done"]


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C works where the tests run in the background, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(folder: Path, walk: Any = None, **options: Any) -> Fit:
    others = {n: options.pop(n) for n in OTHERS if n in options}
    recipe = options.pop("recipe", Recipe(config={"lr": 1}, free=("config.steps",)))
    settings: dict[str, Any] = {
        "steps": 24,
        "seed": 3,
        "metric": "score",
        "validate_every_steps": 3,
        "save_every_seconds": 0.0,
    }
    return fit(
        walk or Walk(), folder, LoopConfig(**{**settings, **options}), recipe=recipe, **others
    )


def stop_at(step: int) -> Callable[[int], None]:
    def stop(now: int) -> None:
        if now == step:
            raise RuntimeError("killed")

    return stop


def kill(folder: Path, step: int, **options: Any) -> None:
    """A run that ends within a step, with what its last state and later lines left."""
    with pytest.raises(RuntimeError, match="killed"):
        run(folder, Walk(stop_at(step)), **options)


def read(folder: Path) -> dict[str, Any]:
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for record in log:
        for name in ("seconds", "validation_seconds", "seen_per_second"):
            record.pop(name, None)
    best = str((folder / "best").readlink())
    return {"model": (folder / "best" / "model").read_text(), "best": best, "log": log}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("data_rank", [0, 1])
def test_each_step_of_each_part_draws_its_own_numbers(tmp_path: Path, data_rank: int) -> None:
    """With the same ones a run goes on to the same bits as well, and dropout never changes."""
    drawn = []

    class Draws(Walk):
        def step(self, step: int) -> Mapping[str, Tensor]:
            values = super().step(step)
            drawn.append(float(values["loss"]))
            return values

    run(tmp_path, Draws(), processes=Processes(data_rank=data_rank))
    expected = []
    for step in range(1, 25):
        seed_torch(3, step, data_rank)
        expected.append(float(torch.rand(())))
    assert drawn == expected
    assert len(set(drawn)) == 24
    seed_torch(3, 1, 1 - data_rank)
    assert float(torch.rand(())) not in drawn


def test_files_and_best_step(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    result = run(folder)
    assert (result.steps, result.best_step, result.best_value) == (24, 15, 0.4)
    assert result.resumed_after == 0
    assert names(folder) == ["best", "log.jsonl", "models", "recipe.json", "states"]
    found = read(folder)
    assert found["best"] == "models/step-15"
    assert [record["step"] for record in found["log"]] == list(range(3, 25, 3))
    assert [record["best_step"] for record in found["log"]] == [3, 6, 6, 6, 15, 15, 15, 15]
    assert [record["done"] for record in found["log"]] == list(range(3, 25, 3))
    assert names(folder / "models") == ["step-15"]
    assert names(folder / "states") == ["step-23", "step-24"]
    assert (folder / "best" / "parts" / "one").read_text() == "15"


def test_values_between_lines(tmp_path: Path) -> None:
    torch.manual_seed(0)
    moves: list[float] = []

    class Kept(Walk):
        def step(self, step: int) -> Mapping[str, Tensor]:
            values = super().step(step)
            moves.append(float(values["loss"]))
            return values

    log = run(tmp_path, Kept(), log_every_steps=2, unit="seen").history
    assert [record["step"] for record in log][:4] == [2, 3, 4, 6]
    assert ["metrics" in record for record in log][:4] == [False, True, False, True]
    assert [record["seen"] for record in log][:4] == [4, 2, 2, 4]
    assert log[0]["loss"] == pytest.approx(sum(moves[:2]) / 2, rel=1e-12)
    assert log[3]["loss"] == pytest.approx(sum(moves[4:6]) / 2, rel=1e-12)
    assert all(record["seen_per_second"] > 0 for record in log)


def test_validation_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    result = run(tmp_path, validate_every_steps=9, log_every_steps=3)
    assert [r["step"] for r in result.history if "metrics" in r] == [9, 18, 24]
    assert [r["step"] for r in result.history] == list(range(3, 25, 3))
    assert result.best_step == 9
    assert run(tmp_path / "b", validate_every_steps=None).best_step == 24


def test_low_metrics_may_be_good_ones(tmp_path: Path) -> None:
    assert run(tmp_path, metric_mode="min", steps=15).best_step == 3
    assert run(tmp_path / "b", metric_mode="min", steps=24).best_step == 3


def test_patience(tmp_path: Path) -> None:
    result = run(tmp_path, patience=2)
    assert (result.steps, result.best_step) == (12, 6)
    again = run(tmp_path, Walk(stop_at(13)), patience=2)
    assert (again.steps, again.best_step, again.resumed_after) == (12, 6, 12)


@pytest.mark.parametrize("save", [0.0, 1e9])
@pytest.mark.parametrize("log_every", [None, 1, 2, 5])
def test_a_killed_run_ends_like_an_unbroken_one(
    tmp_path: Path, save: float, log_every: int | None
) -> None:
    run(tmp_path / "whole", log_every_steps=log_every)
    expected = read(tmp_path / "whole")
    for step in (1, 3, 4, 16, 24):
        folder = tmp_path / str(step)
        kill(folder, step, save_every_seconds=save, log_every_steps=log_every)
        resumed = run(folder, log_every_steps=log_every)
        assert resumed.resumed_after == (0 if save else step - 1)
        assert read(folder) == expected
        assert not [name for name in names(folder) if name.startswith(".")]


@pytest.mark.parametrize("save", [0.0, 1e9])
@pytest.mark.parametrize("name", ["append", "begin", "finish", "point", "prune", "cut_log"])
def test_killed_between_any_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, save: float
) -> None:
    """Before and after each call that writes, at each of its first calls."""
    from lmcore.training.folder import RunFolder

    run(tmp_path / "whole", steps=9)
    expected = read(tmp_path / "whole")
    original = getattr(RunFolder, name)
    for before in (True, False):
        for number in (1, 2, 4):
            calls = 0

            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == number and before:  # noqa: B023
                    os._exit(9)
                result = original(*arguments, **options)
                if calls == number:  # noqa: B023
                    os._exit(9)
                return result

            folder = tmp_path / f"{before}{number}"
            for _ in range(2):  # a second one may end in what the first left
                if not (child := os.fork()):
                    monkeypatch.setattr(RunFolder, name, call)
                    run(folder, save_every_seconds=save, steps=9)
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, 9)
            assert run(folder, steps=9).steps == 9
            assert read(folder) == expected
            assert not list(folder.rglob(".*"))


def test_model_and_state_are_one_transaction(tmp_path: Path) -> None:
    """Saved after step 9, killed in 16 after a better model, resumed to end at 12."""
    run(tmp_path / "run", steps=9)
    kill(tmp_path / "run", 17, save_every_seconds=1e9)
    assert read(tmp_path / "run")["best"] == "models/step-15"
    result = run(tmp_path / "run", steps=12)
    assert (result.resumed_after, result.best_step) == (9, 6)
    run(tmp_path / "whole", steps=12)
    assert read(tmp_path / "run") == read(tmp_path / "whole")
    assert names(tmp_path / "run" / "models") == ["step-6"]


@pytest.mark.parametrize("first", [4, 9, 10, 11])
@pytest.mark.parametrize("log_every", [None, 2])
def test_a_longer_run_is_an_unbroken_one(tmp_path: Path, first: int, log_every: int | None) -> None:
    """The validation at the end of the short one, off the schedule, is none of the long one."""
    options: dict[str, Any] = {"validate_every_steps": 6, "log_every_steps": log_every}
    short = run(tmp_path / "run", steps=first, **options)
    assert "metrics" in short.history[-1]
    assert run(tmp_path / "run", steps=24, **options).resumed_after == first
    run(tmp_path / "whole", steps=24, **options)
    assert read(tmp_path / "run") == read(tmp_path / "whole")


def test_a_shorter_end_of_a_long_run(tmp_path: Path) -> None:
    kill(tmp_path / "run", 12, validate_every_steps=6, log_every_steps=11)
    result = run(tmp_path / "run", steps=11, validate_every_steps=6, log_every_steps=11)
    assert result.resumed_after == 11
    assert "metrics" in result.history[-1]
    with pytest.raises(ValueError, match="its state is of step 11: steps must be at least that"):
        run(tmp_path / "run", steps=10, validate_every_steps=6, log_every_steps=11)


@pytest.mark.parametrize("every", [3, 5])
def test_a_finished_run_stays(tmp_path: Path, every: int) -> None:
    first = run(tmp_path, validate_every_steps=every)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    class Silent(Walk):
        def validate(self) -> dict[str, float]:
            raise AssertionError

    second = run(tmp_path, Silent(stop_at(25)), validate_every_steps=every)
    assert second.resumed_after == 24
    assert second.history == first.history
    assert (second.best_step, second.best_value) == (first.best_step, first.best_value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_ctrl_c_saves_before_it_ends(tmp_path: Path) -> None:
    def interrupt(step: int) -> None:
        if step == 8:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Walk(interrupt), save_every_seconds=1e9)
    assert names(tmp_path / "run" / "states") == ["step-8"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run(tmp_path / "run").resumed_after == 8
    run(tmp_path / "whole")
    assert read(tmp_path / "run") == read(tmp_path / "whole")


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def interrupt(step: int) -> None:
        if step == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Walk(interrupt), save_every_seconds=1e9)
    assert "states" not in names(tmp_path / "run")
    assert run(tmp_path / "run").resumed_after == 0


@pytest.mark.parametrize("at", ["validate", "save_model"])
@pytest.mark.parametrize("steps", [9, 24])
def test_ctrl_c_while_a_step_is_closed(tmp_path: Path, at: str, steps: int) -> None:
    class Interrupted(Walk):
        def validate(self) -> dict[str, float]:
            if at == "validate" and self.done == 9:
                signal.raise_signal(signal.SIGINT)
            return super().validate()

        def save_model(self, folder: Path) -> None:
            super().save_model(folder)
            if at == "save_model" and self.done == 6:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Interrupted(), save_every_seconds=1e9, steps=steps)
    assert names(tmp_path / "run" / "states") == ["step-9" if at == "validate" else "step-6"]
    run(tmp_path / "run")
    run(tmp_path / "whole")
    assert read(tmp_path / "run") == read(tmp_path / "whole")


def test_states_are_kept_with_their_models(tmp_path: Path) -> None:
    kill(tmp_path, 17, keep_states=4)
    assert names(tmp_path / "states") == ["step-13", "step-14", "step-15", "step-16"]
    assert names(tmp_path / "models") == ["step-15", "step-6"]


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    run(tmp_path, steps=3)
    before = read(tmp_path)
    with pytest.raises(FileExistsError, match=r"config.lr is 1 there and 2 here"):
        run(tmp_path, recipe=Recipe(config={"lr": 2}))
    with pytest.raises(FileExistsError, match=r"config.lr is 1 there and 1.0 here"):
        run(tmp_path, recipe=Recipe(config={"lr": 1.0}))
    assert read(tmp_path) == before
    assert run(tmp_path, recipe=Recipe(config={"lr": 2}), resume=False).resumed_after == 0


@dataclass(frozen=True)
class _Inner:
    eps: float = 1e-8
    power: int = 2


@dataclass(frozen=True)
class _Settings:
    lr: float
    inner: _Inner = field(default_factory=_Inner)
    loss: str = "bce"
    sizes: tuple[int, ...] = (1, 2)


def test_a_run_goes_on_though_there_are_new_settings(tmp_path: Path) -> None:
    """What its recipe does not know yet counts as its default, time and again."""
    old = {"lr": 0.1, "inner": {"eps": 1e-8}}
    run(tmp_path, steps=3, recipe=Recipe(config=old))
    written = json.loads((tmp_path / "recipe.json").read_text())["fingerprint"]
    for changed, text in (
        (_Settings(lr=0.1, loss="gbce"), 'config.loss is "bce" there and "gbce" here'),
        (_Settings(lr=0.1, inner=_Inner(power=3)), "config.inner.power is 2 there and 3 here"),
        (_Settings(lr=0.2), r"config.lr is 0.1 there and 0.2 here"),
    ):
        with pytest.raises(FileExistsError, match=text):
            run(tmp_path, steps=6, recipe=Recipe(config=changed))
    for steps in (6, 9):
        recipe = Recipe(config=_Settings(lr=0.1))
        assert run(tmp_path, steps=steps, recipe=recipe).resumed_after == steps - 3
        content = json.loads((tmp_path / "recipe.json").read_text())
        assert content["config"] == {
            "lr": 0.1, "inner": {"eps": 1e-8, "power": 2}, "loss": "bce", "sizes": [1, 2]
        }  # fmt: skip
        assert content["fingerprint"] == written
        check_manifest(find_model(tmp_path), written)
    content["fingerprint"] = None  # of any run, to who looks at a manifest
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"its fingerprint is another than recipe\.json"):
        run(tmp_path, steps=12, recipe=Recipe(config=_Settings(lr=0.1)))
    folder = tmp_path / "without"
    run(folder, steps=3, recipe=Recipe(config={"loss": "bce"}))
    with pytest.raises(FileExistsError, match=r"config.lr is null there and 0.1 here"):
        run(folder, steps=3, recipe=Recipe(config=_Settings(lr=0.1)))


def test_what_is_free_is_a_whole_name(tmp_path: Path) -> None:
    def make(path: str, other: str) -> Recipe:
        config = {"data": {"path": path}, "path": other}
        return Recipe(config=config, free=("config.path",))

    run(tmp_path, steps=3, recipe=make("a", "b"))
    with pytest.raises(FileExistsError, match=r"config\.data\.path is \"a\" there and \"c\" here"):
        run(tmp_path, recipe=make("c", "b"))
    assert run(tmp_path, recipe=make("a", "c")).resumed_after == 3
    assert json.loads((tmp_path / "recipe.json").read_text())["config"]["path"] == "c"


def test_threads_must_stay(tmp_path: Path) -> None:
    """Sums of another number of threads are other sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(tmp_path, steps=3)
        torch.set_num_threads(2)
        with pytest.raises(FileExistsError, match="threads is 1 there and 2 here"):
            run(tmp_path, steps=6)
    finally:
        torch.set_num_threads(before)


def test_a_run_without_model_or_state_does_not_bar_its_folder(tmp_path: Path) -> None:
    kill(tmp_path, 2, save_every_seconds=1e9, log_every_steps=1)
    assert run(tmp_path, recipe=Recipe(config={"lr": 2})).resumed_after == 0
    assert json.loads((tmp_path / "recipe.json").read_text())["config"] == {"lr": 2}


def test_starting_anew_removes_the_old_model_first(tmp_path: Path) -> None:
    """A killed run leaves no model that seems to be of its recipe."""
    run(tmp_path, steps=6)
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path, Walk(stop_at(1)), recipe=Recipe(config={"lr": 2}), resume=False)
    assert names(tmp_path) == ["notes", "recipe.json"]


@pytest.mark.parametrize("killed_at", ["forget_models", "write_text"])
def test_the_old_model_goes_before_the_new_recipe_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    from lmcore.training import folder

    run(tmp_path, steps=6)

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    owner = folder.RunFolder if killed_at == "forget_models" else folder
    with monkeypatch.context() as patched:
        patched.setattr(owner, killed_at, end)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, recipe=Recipe(config={"lr": 2}), resume=False)
    assert json.loads((tmp_path / "recipe.json").read_text())["config"] == {"lr": 1}


@pytest.mark.parametrize("name", ["models", "states", "log.jsonl", "best"])
@pytest.mark.parametrize("resume", [True, False])
def test_files_of_no_known_run_stay(tmp_path: Path, name: str, resume: bool) -> None:
    (tmp_path / name).write_text("somebody's")
    with pytest.raises(FileExistsError, match=f"holds {name} and no recipe.json of a run"):
        run(tmp_path, steps=3, resume=resume)
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "somebody's"


def test_a_recipe_of_something_else_stays(tmp_path: Path) -> None:
    for text in ("junk", "{}", '{"config": 1}', "[" * 200_000):
        (tmp_path / "recipe.json").write_text(text)
        for resume in (True, False):
            with pytest.raises(ValueError, match=r"recipe\.json: not a recipe: "):
                run(tmp_path, resume=resume)
        assert (tmp_path / "recipe.json").read_text() == text


def test_one_process_at_a_time(tmp_path: Path) -> None:
    refused = []

    def start_another(step: int) -> None:
        if step == 4:
            for resume in (True, False):
                with pytest.raises(FileExistsError, match="another process is training into it"):
                    run(tmp_path / "run", resume=resume)
                refused.append(resume)

    first = run(tmp_path / "run", Walk(start_another))
    assert refused == [True, False]
    alone = run(tmp_path / "alone")
    assert (first.best_step, first.best_value) == (alone.best_step, alone.best_value)
    assert read(tmp_path / "run") == read(tmp_path / "alone")
    # What a kill leaves is not locked.
    (tmp_path / "run" / ".lock").touch()
    assert run(tmp_path / "run").resumed_after == 24
    assert not (tmp_path / "run" / ".lock").exists()


def test_what_killed_writes_left_is_removed(tmp_path: Path) -> None:
    run(tmp_path, steps=3)
    before = names(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    for parent in (tmp_path, tmp_path / "models", tmp_path / "states"):
        (parent / ".lmcore-model").mkdir()
        (parent / ".lmcore-model" / "weights").write_text("half")
        (parent / ".lmcore-log").write_text("half")
        (parent / ".lmcore-link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    run(tmp_path, steps=6)
    assert names(tmp_path) == sorted([*before, "elsewhere"])
    assert not list(tmp_path.rglob(".*"))


def test_a_metric_that_is_no_number(tmp_path: Path) -> None:
    class Broken(Walk):
        def validate(self) -> dict[str, float]:
            return {"score": math.nan if self.done == bad else 0.5}

    for bad in (3, 6):
        with pytest.raises(FloatingPointError, match=f"score of step {bad} is nan"):
            run(tmp_path / str(bad), Broken())
    assert not (tmp_path / "3" / "models").exists()


@pytest.mark.parametrize("bad", [1, 5])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(tmp_path: Path, bad: int, value: float) -> None:
    class Diverged(Walk):
        def step(self, step: int) -> Mapping[str, Tensor]:
            values = super().step(step)
            return {**values, "loss": torch.tensor(value)} if step == bad else values

    message = f"loss of step {bad} is not finite; a smaller lr may help"
    with pytest.raises(FloatingPointError, match=message):
        run(tmp_path, Diverged())
    # No state is later than the last good step.
    assert [n for n in names(tmp_path) if n == "states"] == ([] if bad == 1 else ["states"])
    assert not (tmp_path / "states" / f"step-{bad}").exists()


def test_wrong_metrics_and_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="validation has no metric 'other'; there are score"):
        run(tmp_path / "b", metric="other")
    with pytest.raises(ValueError, match="steps must be given: got none"):
        run(tmp_path / "c", steps=None)
    for name in ("steps", "validate_every_steps", "log_every_steps", "patience", "keep_states"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1 .*: got 0"):
            run(tmp_path / "c", **{name: 0})
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        run(tmp_path / "file")

    class Wide(Walk):
        def step(self, step: int) -> Mapping[str, Tensor]:
            return {"loss": torch.zeros(2)}

    with pytest.raises(ValueError, match=r"loss of a step must be a scalar: got \[2\]"):
        run(tmp_path / "d", Wide())


def test_without_validation_data_the_last_model_is_kept(tmp_path: Path) -> None:
    class Blind(Walk):
        def validate(self) -> dict[str, float]:
            return {}

    result = run(tmp_path, Blind())
    assert (result.best_step, result.best_value) == (24, None)
    assert str((tmp_path / "best").readlink()) == "models/step-24"


def test_the_log_is_appended(tmp_path: Path) -> None:
    """A log of n lines takes as many bytes of writing as it is long."""
    written = 0

    @contextmanager
    def counting() -> Iterator[None]:
        nonlocal written
        from lmcore.training.folder import RunFolder

        original = RunFolder.append

        def append(folder: RunFolder, record: Mapping[str, Any]) -> bytes:
            nonlocal written
            before = folder.log.stat().st_ino if folder.log.exists() else None
            line = original(folder, record)
            assert before in (None, folder.log.stat().st_ino)
            written += len(line)
            return line

        RunFolder.append = append  # type: ignore[method-assign]
        try:
            yield
        finally:
            RunFolder.append = original  # type: ignore[method-assign]

    with counting():
        run(tmp_path, log_every_steps=1, save_every_seconds=1e9)
    assert written == (tmp_path / "log.jsonl").stat().st_size


def test_lines_of_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, steps=3, progress=True)
    assert "step 3/3  loss 0." in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0, 1e9])
def test_a_line_comes_at_least_every_minute_where_there_is_no_terminal(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    """With no time to be quiet, each step has a line; whether there is one changes no result."""
    monkeypatch.setattr(loop, "QUIET_SECONDS", seconds)
    result = run(tmp_path, steps=5, validate_every_steps=4, progress=True)
    lines = [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()]
    validated = ["step 4/5", "step 5/5"]
    steps = [f"step {step}/5" for step in (1, 2, 3, 4, 4, 5, 5)]
    assert lines == (validated if seconds else steps)
    run(tmp_path / "quiet", steps=5, validate_every_steps=4)
    assert capsys.readouterr().err == ""
    assert [line["loss"] for line in result.history] == [
        json.loads(line)["loss"] for line in (tmp_path / "quiet/log.jsonl").read_text().splitlines()
    ]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(tmp_path, steps=6, tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [e.step for e in found.Scalars("loss")] == [3, 6]
    assert [round(e.value, 3) for e in found.Scalars("validation/score")] == SCORES[:2]


# Files of a run that changed.


def resign(folder: Path) -> None:
    """Digests of files that a test changed: what then is refused is refused for what it holds."""
    old = json.loads((folder / "manifest.json").read_text())
    more = {k: v for k, v in old.items() if k not in ("fingerprint", "step", "files", "digest")}
    write_manifest(folder, old["fingerprint"], old["step"], **more)


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
def test_one_flipped_bit_of_a_state(tmp_path: Path, file: str) -> None:
    run(tmp_path, steps=6)
    path = tmp_path / "states" / "step-6" / file
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        with pytest.raises(ValueError, match=r"states/step-6/(state\.pt|manifest\.json)"):
            run(tmp_path, steps=9)
        path.write_bytes(whole)
    assert run(tmp_path, steps=9).resumed_after == 6


def test_an_exchanged_a_missing_and_a_new_file(tmp_path: Path) -> None:
    run(tmp_path / "a", steps=6)
    other = Recipe(config={"lr": 2})
    run(tmp_path / "b", steps=6, recipe=other)
    state = tmp_path / "b" / "states" / "step-6"
    own = tmp_path / "a" / "states" / "step-6"
    for name in ("state.pt", "manifest.json"):
        (own / name).write_bytes((state / name).read_bytes())
    with pytest.raises(ValueError, match=r"manifest\.json: of another run: its fingerprint"):
        run(tmp_path / "a", steps=9)
    (state / "more").write_text("")
    with pytest.raises(ValueError, match=r"step-6/more: was not written by the run"):
        run(tmp_path / "b", steps=9, recipe=other)
    (state / "more").unlink()
    (tmp_path / "b" / "best" / "parts" / "one").unlink()
    with pytest.raises(ValueError, match=r"models/step-6/parts/one: is missing"):
        run(tmp_path / "b", steps=9, recipe=other)


def test_a_state_of_another_step(tmp_path: Path) -> None:
    run(tmp_path, steps=6)
    (tmp_path / "states" / "step-6").rename(tmp_path / "states" / "step-7")
    with pytest.raises(ValueError, match=r"step-7/manifest\.json: of step 6"):
        run(tmp_path, steps=9)


@pytest.mark.parametrize("change", ["cut", "bit", "gone", "value"])
def test_a_log_that_changed(tmp_path: Path, change: str) -> None:
    run(tmp_path, steps=9)
    log = tmp_path / "log.jsonl"
    content = log.read_bytes()
    changed = {
        "cut": content.splitlines(keepends=True)[0],
        "bit": bytes([content[0] ^ 1]) + content[1:],
        "value": content.replace(b'"best_step": 6', b'"best_step": 3'),
    }
    log.write_bytes(changed[change]) if change != "gone" else log.unlink()
    with pytest.raises(ValueError, match=r"log\.jsonl: has changed since the state was saved"):
        run(tmp_path, steps=12)


def test_a_best_that_names_something_else(tmp_path: Path) -> None:
    from lmcore._manifest import find_model

    run(tmp_path / "run", steps=9)
    best = tmp_path / "run" / "best"
    assert find_model(tmp_path / "run") == tmp_path / "run" / "models" / "step-6"
    best.unlink()
    best.symlink_to("/etc")
    with pytest.raises(ValueError, match="best: must be a link to models/step-N: got '/etc'"):
        find_model(tmp_path / "run")
    assert run(tmp_path / "run", steps=9).best_step == 6
    assert str(best.readlink()) == "models/step-6"


def test_a_copy_of_a_folder_goes_on(tmp_path: Path) -> None:
    """Copies without links hold a folder in place of `best`."""
    import shutil

    from lmcore._manifest import find_model

    run(tmp_path / "run", steps=9)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert find_model(tmp_path / "copy") == tmp_path / "copy" / "best"
    assert run(tmp_path / "copy", steps=24).resumed_after == 9
    run(tmp_path / "whole")
    assert read(tmp_path / "copy") == read(tmp_path / "whole")
