"""The commands `lmcore ner train` and `lmcore ner recipe`."""

import gzip
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny_models
from commands import check_line, finish, run_here, run_warm, start_warm
from lmcore.ner.models import load_model

SMALL = [
    "--threads", "1", "--device", "cpu", "--set", "batch_size=6", "--set", "max_target_tokens=8",
    "--set", "max_source_tokens=16", "--set", "loop.steps=4", "--set", "optimizer.lr=0.02",
    "--set", "loop.save_every_seconds=0",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows for training and validation, and a model of each kind."""
    place = tmp_path_factory.mktemp("ner")
    lines = [json.dumps(row) + "\n" for row in tiny_models.make_rows(14)]
    (place / "train.jsonl").write_text("".join(lines))
    (place / "dev.jsonl.gz").write_bytes(gzip.compress("".join(lines[:4]).encode()))
    tiny_models.save("t5", place / "t5")
    tiny_models.save("llama", place / "llama")
    return place


def arguments(folder: Path, out: Path, model: str = "t5") -> list[Any]:
    return [
        "ner", "train", "t5_base", "--model", folder / model, "--data", folder / "train.jsonl",
        "--dev", folder / "dev.jsonl.gz", "--out", out, *SMALL,
    ]  # fmt: skip


def test_a_recipe_is_printed() -> None:
    code, output, errors = run_here("ner", "recipe", "llama_7b", "--set", "lora.rank=8")
    assert (code, errors) == (0, "")
    config = json.loads(output)
    assert (config["lora"]["rank"], config["batch_size"], config["epochs"]) == (8, 256, 3)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_train(folder: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"
    code, output, errors = run_here(*arguments(folder, out, kind), "--quiet")
    assert (code, errors) == (0, ""), errors
    summary = json.loads(output)
    assert {**summary, "best_step": 0, "f1": 0} == {
        "out": str(out), "steps": 4, "best_step": 0, "f1": 0,
    }  # fmt: skip
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["data"]["path"] == str(folder / "train.jsonl")
    assert recipe["data"]["dev"] == str(folder / "dev.jsonl.gz")
    assert recipe["config"]["device"]["precision"] == "float32"
    again = run_here(*arguments(folder, out, kind), "--quiet")
    assert json.loads(again[1]) == summary
    assert type(load_model(out)).__name__ == {"t5": "T5ForConditionalGeneration",
                                              "llama": "LlamaForCausalLM"}[kind]  # fmt: skip


def test_progress_says_what_is_cut_and_what_changed(folder: Path, tmp_path: Path) -> None:
    given = [*arguments(folder, tmp_path / "a"), "--set", "max_source_tokens=5"]
    code, output, errors = run_here(*given)
    assert code == 0
    assert len(output.splitlines()) == 1
    assert "float32 in the place of bfloat16, which cpu lacks here" in errors
    assert "14 instructions and 0 targets of 14 rows are cut, 56 tokens in all" in errors
    code, output, errors = run_here(*given, "--no-resume", "--quiet")
    assert errors == "lmcore: 14 instructions and 0 targets of 14 rows are cut, 56 tokens in all\n"


def test_a_killed_command_goes_on(folder: Path, tmp_path: Path) -> None:
    longer = ["--quiet", "--set", "loop.steps=40"]
    whole = run_here(*arguments(folder, tmp_path / "whole"), *longer)
    out = tmp_path / "killed"
    process = start_warm(*arguments(folder, out), *longer)
    states = out / "states"
    while process.poll() is None and not [*states.glob("step-*")]:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    finish(process)
    again = run_here(*arguments(folder, out), *longer)
    assert again[0] == 0
    assert {**json.loads(again[1]), "out": ""} == {**json.loads(whole[1]), "out": ""}
    one, two = (load_file(p / "best/model.safetensors") for p in (tmp_path / "whole", out))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_two_commands_into_one_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    longer = ["--quiet", "--set", "loop.steps=2000", "--set", "loop.validate_every_steps=2000"]
    first = start_warm(*arguments(folder, out), *longer)
    while first.poll() is None and not (out / "recipe.json").exists():
        time.sleep(0.05)
    check_line(run_warm(*arguments(folder, out), *longer), "another process is training into it")
    first.send_signal(signal.SIGINT)
    code, _, errors = finish(first)
    assert (code, errors) == (130, "lmcore: interrupted\n")
    assert [*(out / "states").glob("step-*")]


def test_torchrun(folder: Path, tmp_path: Path) -> None:
    code = "from lmcore.cli import main; main()"
    script = tmp_path / "main.py"
    script.write_text(code)
    done = subprocess.run(
        ["torchrun", "--standalone", "--nproc-per-node", "2", str(script),
         *map(str, arguments(folder, tmp_path / "run")), "--quiet"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    alone = run_here(*arguments(folder, tmp_path / "alone"), "--quiet")
    assert json.loads(alone[1])["f1"] == json.loads(done.stdout)["f1"]


def test_bad_input_is_one_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = arguments(folder, out)

    def check(changes: dict[str, Any], *texts: str) -> None:
        given = list(good)
        for name, value in changes.items():
            if name == "RECIPE":
                given[2] = value
            elif name == "--set":
                given += ["--set", value]
            else:
                given[given.index(name) + 1] = value
        check_line(run_here(*given, "--quiet"), *texts)
        assert not out.exists()

    empty, bare, broken = (tmp_path / name for name in ("empty", "bare.jsonl", "broken.jsonl"))
    empty.write_text("")
    bare.write_text('{"instruction": "a", "target": "b"}\n')
    broken.write_text('{"instruction": "a"}\n')
    (tmp_path / "folder").mkdir()
    check({"RECIPE": "t5"}, "RECIPE must be one of tiny, t5_small,", "got 't5'")
    check({"--data": empty}, "empty: the file holds no rows")
    check({"--data": tmp_path / "none"}, "none: No such file or directory")
    check({"--data": tmp_path / "folder"}, "folder: Is a directory")
    check({"--data": broken}, "broken.jsonl:1: target is missing (or prompt_labels in instance)")
    check({"--dev": bare}, "bare.jsonl:1: words is missing, which validation compares with")
    check({"--model": tmp_path / "none"}, "none: no such folder of a model")
    check({"--model": tmp_path / "folder"}, "not a model: there is no config.json in it")
    check({"--set": "batch_size=0"}, "batch_size must be at least 1")
    check({"--set": "epoch=1"}, "'epoch' is no setting of TrainConfig; there are model, scratch")
    check({"--set": "device.sharding=full"}, "sharding must be none where one process runs")
    check_line(
        run_here(*good, "--quiet", "--set", "lora.rank=2", "--set", 'lora.targets=["x"]'),
        "lora.targets: 'x' is no linear layer of a T5ForConditionalGeneration",
    )
    assert not out.exists()


def test_bad_rows_are_skipped_on_request(folder: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text((folder / "train.jsonl").read_text() + '{"target": "x"}\n')
    given = arguments(folder, tmp_path / "run")
    given[given.index("--data") + 1] = mixed
    code, _, errors = run_here(*given, "--quiet", "--skip-bad-rows")
    assert code == 0
    assert errors == (
        f"skipped {mixed}:15: instruction is missing (or instruction_inputs in instance)\n"
    )
