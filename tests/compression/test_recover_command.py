"""The command `lmcore compression recover`."""

import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from commands import check_line, finish, run_here, start_warm
from lmcore.compression.recipes import MASK_RECIPES
from lmcore.training.config import override
from tiny_recovery import SETTINGS, TEXTS, prune, save, save_openba

OPTIONS = [
    part
    for name, value in SETTINGS.items()
    if not name.startswith("device.")
    for part in ("--set", f"{name}={value}")
] + ["--threads", "1", "--device", "cpu", "--recipe", "tiny"]


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("recover")
    save_openba(place / "large")
    prune(place / "large", place / "small", hidden=range(12))
    (place / "a.txt").write_text(TEXTS)
    (place / "b.jsonl").write_text(json.dumps({"text": TEXTS[:2000]}) + "\n")
    return place


def arguments(folder: Path, out: Path, *more: Any) -> list[Any]:
    texts = ["--data", folder / "a.txt", "--valid", folder / "b.jsonl"]
    return ["compression", "recover", folder / "small", out, *texts, *OPTIONS, *more]


def test_recover(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, output, errors = run_here(*arguments(folder, out, "--data", folder / "b.jsonl"))
    assert code == 0, errors
    assert f"teacher: {folder / 'large'}, from which {folder / 'small'} was pruned" in errors
    summary = json.loads(output)
    assert {**summary, "best_step": 0, "loss": 0, "loss_before": 0} == {
        "out": str(out), "objective": "d_ul2", "steps": 5, "best_step": 0, "loss": 0,
        "loss_before": 0,
    }  # fmt: skip
    assert summary["loss"] < summary["loss_before"]
    # One loss is that of training, the other that of validation, and each says which it is.
    shown = [line for line in errors.splitlines() if line.startswith("step ")]
    assert shown
    for line in shown:
        assert re.fullmatch(
            r"step \d/5  loss \d\.\d{4}  validation loss \d\.\d{4}  best at step \d  [\d.]+ s", line
        )
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"loss", "loss_distillation", "share_of_S", "tokens_per_second"} < set(lines[0])
    assert len(lines[1]["metrics"]) == 8
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["data"]["files"] == [str(folder / "a.txt"), str(folder / "b.jsonl")]
    again = run_here(*arguments(folder, out, "--data", folder / "b.jsonl"), "--quiet")
    assert again == (0, output, "")
    # What came of it is pruned and recovered further.
    prune(out / "best", tmp_path / "smaller", hidden=range(8))
    more = ["--data", out / "packed" / next((out / "packed").glob("*.bin")).stem]
    more += ["--valid", folder / "b.jsonl", *OPTIONS, "--steps", 1, "--quiet"]
    result = run_here("compression", "recover", tmp_path / "smaller", tmp_path / "more", *more)
    assert json.loads(result[1])["steps"] == 1


def test_a_killed_command_goes_on(folder: Path, tmp_path: Path) -> None:
    longer = ["--quiet", "--steps", 12]
    whole = run_here(*arguments(folder, tmp_path / "whole"), *longer)
    out = tmp_path / "killed"
    process = start_warm(*arguments(folder, out), *longer)
    states = out / "states"
    while process.poll() is None and not [*states.glob("step-*")]:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    finish(process)
    again = run_here(*arguments(folder, out), *longer)
    assert again[0] == 0, again
    assert {**json.loads(again[1]), "out": ""} == {**json.loads(whole[1]), "out": ""}
    one, two = (load_file(p / "best/model.safetensors") for p in (tmp_path / "whole", out))
    assert all(torch.equal(one[name], two[name]) for name in one)


def flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_recipes(folder: Path, tmp_path: Path) -> None:
    code, output, errors = run_here("compression", "recipe", "o_ul2", "--set", "batch_size=3")
    assert (code, errors) == (0, "")
    config = json.loads(output)
    assert (config["text_tokens"], config["batch_size"]) == (2048, 3)
    # What is printed of masks is what `learn-masks --set` takes, name by name.
    for name, recipe in MASK_RECIPES.items():
        code, output, errors = run_here("compression", "recipe", name)
        assert (code, errors) == (0, "")
        given = [f"{key}={json.dumps(value)}" for key, value in flatten(json.loads(output))]
        assert override(MASK_RECIPES["learned_masks"](), given) == recipe()
    check_line(run_here("compression", "recipe", "tiny_masks", "--set", "a=1"), "'a' is no setting")
    check_line(
        run_here("compression", "recipe", "other"),
        "RECIPE must be one of openba_v2, openba_v2_path",
    )
    check_line(run_here("compression", "recipe", "openba_v2", "--set", "a=1"), "--set belongs")
    # A decoder's own recipe is taken where none is named.
    place = save("gpt2", tmp_path / "gpt2")
    given = ["--data", folder / "a.txt", "--device", "cpu", "--quiet", "--set", "text_tokens=70"]
    result = run_here("compression", "recover", place, tmp_path / "run", *given)
    check_line(result, "text_tokens must be less: a row has 69 tokens")


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (tmp_path / "short.txt").write_text("Ada.\n")
    (tmp_path / "bad.jsonl").write_text('{"text": 3}\n')
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text('{"model_type": "bert"}')
    for more, text in (
        (["--set", "speed=1"], "'speed' is no setting of RecoveryConfig"),
        (["--set", f"initial_proportions={[0.5] * 7}"], "initial_proportions must sum to 1"),
        (["--set", f"initial_proportions={[0.5] * 2}"], "initial_proportions must be"),
        (["--set", "targets=[NaN]"], "targets must be"),
        (["--set", "objective=causal"], "objective must be ul2, d_ul2 or o_ul2"),
        (["--recipe", "other"], "RECIPE must be one of d_ul2"),
        (["--teacher", "nowhere"], "nowhere: no such folder of a model"),
        (["--teacher", bert], "bert: holds neither model.safetensors"),
        (["--data", tmp_path / "none"], "expected a file of texts"),
        (["--valid", tmp_path / "none"], "expected a file of texts"),
        (["--data", "/dev/null"], "/dev/null: expected a file of texts"),
        (["--data", tmp_path / "bad.jsonl"], "bad.jsonl:1: "),
    ):
        check_line(run_here(*arguments(folder, out, *more), "--quiet"), text)
    warm = ["--steps", 20, "--set", "schedule.kind=cosine", "--set", "schedule.warmup_steps=20"]
    fresh = tmp_path / "fresh"
    check_line(run_here(*arguments(folder, fresh, *warm), "--quiet"), "must be below the 20 steps")
    assert not fresh.exists()
    recover = ["compression", "recover"]
    text = ["--data", folder / "a.txt", *OPTIONS, "--quiet"]
    check_line(run_here(*recover, folder / "small", out, *text), "d_ul2 needs validation texts")
    short = [*text, "--valid", tmp_path / "short.txt"]
    check_line(run_here(*recover, folder / "small", out, *short), "expected 40 tokens for a group")
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "config.json").write_text('{"model_type": "t5", "d_model": "x"}')
    # The library says on its first line where, and on the next one why.
    check_line(run_here(*recover, wrong, out, *text), "field 'd_model': ", "expected int, got str")
    check_line(run_here(*recover, bert, out, *text), "an encoder alone has no objective")
    check_line(run_here(*recover, tmp_path, out, *text), "there is no config.json in it")
    assert not (out / "states").exists()
    assert run_here(*arguments(folder, out), "--quiet")[0] == 0
    other = run_here(*arguments(folder, out, "--set", "batch_size=3"), "--quiet")
    check_line(other, "holds another run: config.batch_size is 12 there and 3 here")


def test_two_commands_into_one_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    longer = ["--quiet", "--steps", 5000, "--set", "loop.validate_every_steps=5000"]
    first = start_warm(*arguments(folder, out), *longer)
    while first.poll() is None and not (out / "recipe.json").exists():
        time.sleep(0.05)
    second = run_here(*arguments(folder, out), *longer)
    first.send_signal(signal.SIGKILL)
    finish(first)
    check_line(second, "another process is training into it")


def list_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_output_is_no_model_that_is_read(folder: Path, tmp_path: Path) -> None:
    """A run in its model's folder would be taken for the model, and could not go on."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "run"
    assert run_here(*arguments(tmp_path, run, "--quiet"))[0] == 0
    before = list_files(tmp_path)
    for place in ("small", "small/run", "large", "large/run"):
        lies = run_here(*arguments(tmp_path, tmp_path / place, "--quiet"))
        check_line(lies, f"{place}: lies in the folder of the model that is read")
    # A run as the model or the teacher of itself: starting anew would remove what is read.
    itself = arguments(tmp_path, run, "--quiet", "--no-resume")
    learns = run_here(*itself, "--teacher", run)
    itself[2] = run
    check_line(run_here(*itself), "the output is an input too")
    check_line(learns, "the output is an input too")
    assert list_files(tmp_path) == before


def test_a_run_goes_on_with_the_teacher_that_it_had(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    large, moved, out = tmp_path / "large", tmp_path / "moved", tmp_path / "run"
    assert run_here(*arguments(tmp_path, out, "--quiet"))[0] == 0
    before = list_files(out)
    longer = arguments(tmp_path, out, "--quiet", "--steps", 7)
    large.rename(moved)
    check_line(
        run_here(*longer),
        "run: holds a run that learned from a teacher so far; no teacher: ",
        f"its record names {large}, where no model is",
    )
    weights = load_file(moved / "model.safetensors")
    shutil.copytree(moved, large)
    trained = {name: weight * 1.5 for name, weight in weights.items()}
    save_file(trained, large / "model.safetensors", {"format": "pt"})
    check_line(run_here(*longer), f"its record names {large}, whose weights are others now")
    check_line(run_here(*longer, "--teacher", large), "data.teacher is")
    (large / "model.safetensors").write_bytes((moved / "model.safetensors").read_bytes()[:-1])
    check_line(run_here(*longer), "large/model.safetensors: ")
    assert list_files(out) == before
    # It may have moved.
    code, output, errors = run_here(*longer, "--teacher", moved)
    assert code == 0, errors
    assert json.loads(output)["steps"] == 7


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder: Path, tmp_path: Path, value: float) -> None:
    """The model's and the teacher's, by their folders."""
    spoilt = "decoder.block.0.input_layernorm.weight"
    for name in ("large", "small"):
        place = tmp_path / name
        shutil.copytree(folder, place)
        file = place / name / "model.safetensors"
        weights = load_file(file)
        weights[spoilt][3] = value
        save_file(weights, file, {"format": "pt"})
        given = arguments(place, tmp_path / "run", "--quiet", "--teacher", place / "large")
        check_line(run_here(*given), f"{name}/{name}: {spoilt} is not finite")
    assert not (tmp_path / "run" / "states").exists()
