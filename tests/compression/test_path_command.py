"""The command `lmcore compression path`: what it prints, and what it refuses in one line."""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import check_line, finish, run, run_here, start_warm
from lmcore._files import FolderLock
from lmcore.compression.path import place_training
from lmcore.compression.path_files import load_path, write_path
from lmcore.compression.recipes import PATHS
from tiny_path import make_path, save_inputs


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, texts, and a path over them whose second stage takes a while."""
    folder = tmp_path_factory.mktemp("path")
    save_inputs(folder)
    path = make_path({"model": "large", "data": "train.txt", "valid": "valid.txt"})
    write_path(folder / "path.json", path)
    return folder


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def test_the_command_and_kills(folder: Path) -> None:
    """Killed in the first stage and in the second, it ends as one that nothing stopped."""
    given = ["compression", "path", folder / "path.json", "--quiet"]
    code, whole, errors = run_here(*given, folder / "whole")
    assert code == 0, errors
    assert errors == f"the model: {folder}/whole/3-tokens/pruned\n"
    lines = whole.splitlines()
    assert lines[0] == "1/3 layers: 126,080 parameters became 109,296"
    assert lines[1].startswith("1/3 layers: 4 steps, loss ")
    report = json.loads((folder / "whole" / "report.json").read_text())["stages"]
    head, *rows = lines[-4:]
    assert head.split()[:2] == ["stage", "parameters"]
    for row, stage in zip(rows, report, strict=True):
        losses = [stage[name] for name in ("loss_before", "loss_cut", "loss")]
        shown = ["-" if loss is None else f"{loss:.4f}" for loss in losses]
        count = f"{stage['parameters']:,}"
        assert row.split() == [stage["name"], count, *shown, str(stage["steps"]),
                               str(stage["tokens"])]  # fmt: skip
    out = folder / "killed"
    for place in ("1-layers/recovered/states", "2-widths/pruned"):
        process = start_warm(*given, out)
        while process.poll() is None and not [*(out / place).glob("*")]:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        finish(process)
    again = run_here(*given, out)
    assert (again[0], again[1]) == (0, whole)
    assert weights(out) == weights(folder / "whole")
    assert (out / "report.json").read_bytes() == (folder / "whole" / "report.json").read_bytes()
    cost = run_here("compression", "cost", out / "plan.json", "--json")
    sizes = [row["parameters"]["distinct"] for row in json.loads(cost[1])]
    assert sizes == [report[0]["parameters_before"], *(stage["parameters"] for stage in report)]


def test_one_of_two_goes_on(folder: Path) -> None:
    out = folder / "locked"
    out.mkdir()
    with FolderLock(out, doing="walking a path").hold():
        check_line(run_here("compression", "path", folder / "path.json", out),
                   "locked: another process is walking a path into it")  # fmt: skip


def test_refusals_are_one_line(folder: Path, tmp_path: Path) -> None:
    path = folder / "path.json"

    def refuse(
        *texts: str, file: Path = path, out: Path = tmp_path / "out", **options: Any
    ) -> None:
        given = [part for name, value in options.items() for part in (f"--{name}", value)]
        check_line(run_here("compression", "path", file, out, "--quiet", *given), *texts)
        assert not (tmp_path / "out").exists()

    content = json.loads(path.read_text())
    other = folder / "other.json"
    other.write_text(json.dumps({**content, "stages": []}))
    refuse("other.json: not a path: a path has from 1 to 100 stages: got none", file=other)
    twice = {"name": "again", "keep": {"decoder_layers": "0-1,3"}}
    other.write_text(json.dumps({**content, "stages": [*content["stages"][:1], twice]}))
    refuse("stage 2 (again): decoder_layers keeps 1, which an earlier stage has cut", file=other)
    far = {"name": "far", "target": {"goal": "params=5"}}
    other.write_text(json.dumps({**content, "stages": [far]}))
    refuse("stage 1 (far): no sizes come down to 5 parameters; the nearest has", file=other)
    refuse("nowhere", file=tmp_path / "nowhere")
    refuse("nowhere", data=tmp_path / "nowhere")
    refuse("empty", model=tmp_path / "empty")
    refuse("lies in the folder of the model", out=folder / "large" / "out")
    out = folder / "whole"
    if out.exists():
        shutil.copy(path, folder / "changed.json")
        content["stages"][1]["sizes"]["ffn"] = 21
        (folder / "changed.json").write_text(json.dumps(content))
        refuse("config.stages.2-widths.sizes.ffn is 20 there and 21 here",
               file=folder / "changed.json", out=out)  # fmt: skip


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"format": "lmcore-path", "version": 1, "stages": []}', "not a path: a path has from 1"),
        ('{"format": "lmcore-path", "version": 1, "stages": [{"sizes": {"ffn": 7}}]}',
         "expected a model to begin with: the path names none"),
    ],
)  # fmt: skip
def test_a_wrong_file_does_not_wait_for_torch(tmp_path: Path, content: str, text: str) -> None:
    file = tmp_path / "path.json"
    file.write_text(content)
    (tmp_path / "torch.py").write_text("raise RuntimeError('it was imported')")
    given = ["compression", "path", file, tmp_path / "out"]
    check_line(run(*given, code=f"sys.path.insert(0, {str(tmp_path)!r})"), text)


def test_recipes_of_paths(tmp_path: Path) -> None:
    for name, recipe in PATHS.items():
        code, output, errors = run_here("compression", "recipe", name, "--seed", 3)
        assert (code, errors) == (0, "")
        assert load_path(json.loads(output), "") == recipe(3)
    check_line(run_here("compression", "recipe", "luck"), "openba_v2, openba_v2_path, tiny_path")


def test_names_are_escaped(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "path.json").read_text())
    content["stages"][0]["name"] = "\x1b[2J\n"
    (tmp_path / "path.json").write_text(json.dumps(content))
    check_line(run_here("compression", "path", tmp_path / "path.json", tmp_path / "out"), "\\x1b")


def test_a_device_is_that_of_all_stages() -> None:
    path = place_training(make_path({"model": "large"}), device="cuda", threads=3)
    trained = [stage.recover.device for stage in path.stages if stage.recover is not None]
    assert [(device.device, device.threads) for device in trained] == [("cuda", 3)] * 2
