"""The commands `lmcore diffusion train` and `lmcore diffusion recipe`."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from commands import check_line, finish, run_here, run_warm, start_warm
from lmcore.diffusion.models import load_model
from lmcore.worlds.diffusion import list_tokens, make_world
from tiny_diffusion import SMALL

OPTIONS = [
    part
    for name, value in SMALL.items()
    if not name.startswith("device.")
    for part in ("--set", f"{name}={value}")
] + ["--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs for training and validation, and a vocabulary."""
    place: Path = tmp_path_factory.mktemp("diffusion")
    for name, count in (("train", 30), ("valid", 7)):
        (place / f"{name}.jsonl").write_text(make_world(len(name), pairs=count).to_text())
    (place / "vocab.txt").write_text("".join(f"{token}\n" for token in list_tokens()))
    return place


def arguments(folder: Path, out: Path) -> list[Any]:
    return [
        "diffusion", "train", "tiny", "--data", folder, "--tokenizer", folder / "vocab.txt",
        "--out", out, *OPTIONS,
    ]  # fmt: skip


def test_a_recipe_is_printed() -> None:
    code, output, errors = run_here("diffusion", "recipe")
    assert (code, errors) == (0, "")
    config = json.loads(output)
    assert (config["batch_size"], config["penalty"]["kind"]) == (400, "l2_noise_random")
    plain = run_here("diffusion", "recipe", "diffuseq", "--set", "penalty.distance=3")
    assert json.loads(plain[1])["penalty"] == {
        **config["penalty"], "kind": "none", "distance": 3,
    }  # fmt: skip


def test_train(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, output, errors = run_here(*arguments(folder, out), "--quiet")
    assert (code, errors) == (0, ""), errors
    summary = json.loads(output)
    assert {**summary, "best_step": 0, "loss": 0} == {
        "out": str(out), "steps": 5, "best_step": 0, "loss": 0, "shortened_pairs": 0,
        "unknown_tokens": 0,
    }  # fmt: skip
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["data"]["path"] == str(folder / "train.jsonl")
    assert recipe["data"]["valid"] == str(folder / "valid.jsonl")
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"loss", "error", "embedding", "tokens_per_second"} < set(lines[0])
    again = run_here(*arguments(folder, out), "--quiet")
    assert json.loads(again[1]) == summary
    assert load_model(out).config.latent_size == 8
    more = ["diffusion", "train", "tiny", "--data", folder / "train.jsonl", "--model", out]
    more += [*OPTIONS, "--out", tmp_path / "more", "--steps", 2, "--quiet"]
    assert run_here(*more, "--set", "penalty.kind=l2_noise_random")[0] == 0


def test_what_is_cut_or_unknown_is_said(folder: Path, tmp_path: Path) -> None:
    rows = [{"src": "the thief " * 30, "trg": "the robber"}, {"src": "xyzzy", "trg": "the"}]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [*arguments(folder, tmp_path / "run")]
    given[4] = pairs
    code, output, errors = run_here(*given)
    assert code == 0, errors
    assert "1 of 2 pairs do not fit into 32 positions, and lost 35 tokens at their end" in errors
    assert "1 tokens are not in the vocabulary" in errors
    assert (json.loads(output)["shortened_pairs"], json.loads(output)["unknown_tokens"]) == (1, 1)


def test_bad_rows_are_skipped_on_request(folder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"src": "the", "trg": ""}\n' + (folder / "train.jsonl").read_text())
    given = [*arguments(folder, tmp_path / "run"), "--quiet"]
    given[4] = pairs
    check_line(run_here(*given), "pairs.jsonl:1: trg must not be empty")
    code, _, errors = run_here(*given, "--skip-bad-rows")
    assert code == 0
    assert errors == f"skipped {pairs}:1: trg must not be empty\n"


@pytest.mark.alone
def test_a_killed_command_goes_on(folder: Path, tmp_path: Path) -> None:
    longer = ["--quiet", "--steps", 40]
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


@pytest.mark.alone
def test_two_commands_into_one_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    longer = ["--quiet", "--steps", 50_000, "--set", "loop.validate_every_steps=50000"]
    first = start_warm(*arguments(folder, out), *longer)
    while first.poll() is None and not (out / "recipe.json").exists():
        time.sleep(0.05)
    check_line(run_warm(*arguments(folder, out), *longer), "another process is training into it")
    first.send_signal(signal.SIGINT)
    code, _, errors = finish(first)
    assert (code, errors) == (130, "lmcore: interrupted\n")
    assert [*(out / "states").glob("step-*")]


def test_torchrun(folder: Path, tmp_path: Path) -> None:
    """Two processes with shards of the weights and of their average; then one goes on."""
    script = tmp_path / "main.py"
    script.write_text("from lmcore.cli import main; main()")
    out = tmp_path / "run"
    shared = ["--set", "timesteps=loss_aware", "--set", "penalty.kind=l2_noise_random"]
    shared += ["--set", "batch_size=8", "--set", "schedule.kind=constant"]
    shared += ["--set", "schedule.final_share=0"]
    done = subprocess.run(
        ["torchrun", "--standalone", "--nproc-per-node", "2", str(script),
         *map(str, arguments(folder, out)), "--quiet", *shared, "--set", "device.sharding=full"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = run_here(*arguments(folder, tmp_path / "alone"), *shared, "--quiet")
    two, one = json.loads(done.stdout), json.loads(alone[1])
    assert one["loss"] == pytest.approx(two["loss"], abs=1e-6)
    code, output, errors = run_here(*arguments(folder, out), *shared, "--quiet", "--steps", 6)
    assert (code, errors, json.loads(output)["steps"]) == (0, "", 6)


def test_bad_input_is_one_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = arguments(folder, out)

    def check(changes: dict[str, Any], *texts: str) -> None:
        given = list(good)
        for name, value in changes.items():
            if name == "RECIPE":
                given[2] = value
            elif name in given:
                given[given.index(name) + 1] = value
            else:
                given += [name, value]
        check_line(run_here(*given, "--quiet"), *texts)
        assert not out.exists()

    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "words.txt").write_text("[PAD]\n[UNK]\n")
    check({"RECIPE": "bert"}, "RECIPE must be one of diffuseq, e2e_semantic", "got 'bert'")
    check({"--data": tmp_path / "none"}, "none: No such file or directory")
    check({"--data": tmp_path / "folder"}, "folder: holds no train.jsonl, train.tsv or train.csv")
    check({"--data": tmp_path / "empty.jsonl"}, "empty.jsonl: the file holds no rows")
    check({"--valid": tmp_path / "none"}, "none: No such file or directory")
    check({"--format": "xml"}, "format must be one of auto, jsonl, tsv, csv: got 'xml'")
    check({"--tokenizer": tmp_path / "none"}, "none: No such file or directory")
    check({"--tokenizer": tmp_path / "words.txt"}, "words.txt: there is no token [CLS] or")
    check({"--model": tmp_path / "none"}, "none: no such folder of a model")
    check({"--model": tmp_path / "folder"}, "not a model: there is no config.json in it")
    check({"--set": "length=7"}, "length must be at least 8")
    check({"--set": "device.sharding=full"}, "sharding must be none where one process runs")


def test_a_model_of_another_kind_is_one_line(folder: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    BertModel(BertConfig(**sizes, intermediate_size=8)).save_pretrained(tmp_path / "bert")
    given = [*arguments(folder, tmp_path / "out"), "--model", tmp_path / "bert", "--quiet"]
    check_line(run_here(*given), "bert: expected a model of text_diffusion, got one of bert")


@pytest.mark.parametrize("timesteps", ["uniform", "loss_aware"])
def test_an_exploding_loss_is_one_line(folder: Path, tmp_path: Path, timesteps: str) -> None:
    given = [*arguments(folder, tmp_path / "run"), "--quiet", "--set", "optimizer.lr=1e30"]
    given += ["--set", "optimizer.clip_norm=null", "--set", "schedule.warmup_steps=0"]
    given += ["--set", f"timesteps={timesteps}"]
    check_line(run_here(*given), "loss", "of step 2 is not finite; a smaller lr may help")
