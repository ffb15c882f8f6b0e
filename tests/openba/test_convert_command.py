"""The command `lmcore openba convert`: its lines, kills, two processes at once."""

import signal
from pathlib import Path

import pytest
import torch

from commands import check_line, finish, run_here, start_warm
from lmcore.openba import OpenBAForConditionalGeneration
from megatron_files import write_checkpoint
from stopped_runs import wait_for_change
from tiny_openba import make_model

PART = ".model.lmcore-part/.lmcore-cut.part"
# Each tensor waits, so that a run is still going on when it is killed.
SLOW = """
import time
import lmcore.openba.conversion as conversion
work = conversion.write_joined
def wait(*arguments):
    time.sleep(0.02)
    work(*arguments)
conversion.write_joined = wait
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = make_model(vocab_size=64, add_ffn_bias=False)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.get_input_embeddings().weight)
    write_checkpoint(tmp_path / "training", model, 2)
    return tmp_path


def list_names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_summary(folder: Path) -> None:
    assert run_here("openba", "convert", "training", "--out", "model", "--quiet") == (
        0, "", "81 tensors of iteration 123 joined from 2 ranks: 74,880 parameters as float32, "
        "307,560 bytes in 1 file\n",
    )  # fmt: skip
    assert OpenBAForConditionalGeneration.from_pretrained("model").config.decoder_layers == 3
    options = "--out", "half", "--dtype", "float16", "--iteration", 123, "--shard-mb", 1
    code, output, errors = run_here("openba", "convert", "training", *options)
    assert (code, output) == (0, "")
    assert "as float16" in errors


def test_bad_input(folder: Path) -> None:
    check_line(run_here("openba", "convert", "training", "--out", "model", "--iteration", 5),
               "holds no iter_0000005")  # fmt: skip
    check_line(run_here("openba", "convert", "training", "--out", "model", "--dtype", "int8"),
               "dtype must be float16, bfloat16, float32: got 'int8'")  # fmt: skip
    check_line(run_here("openba", "convert", "training", "--out", "training/model"),
               "the output lies in the input")  # fmt: skip
    check_line(run_here("openba", "convert", "absent", "--out", "model"), "absent: not a folder")
    check_line(run_here("openba", "convert", "training", "--out", "model", "--tokenizer", "absent"),
               "absent")  # fmt: skip
    assert list_names() == ["training"]


def test_names_with_control_characters(folder: Path) -> None:
    file = folder / "training/iter_0000123/mp_rank_00/model_optim_rng.pt"
    torch.save({"args": None, "model": {"a\x1b[2J\n": 3}}, file)
    (folder / "training\x1b[2J").symlink_to("training")
    code, _, errors = run_here("openba", "convert", "training\x1b[2J", "--out", "model")
    assert code == 2
    assert "\x1b" not in errors
    assert errors.count("\n") == 1


def test_a_killed_run_goes_on(folder: Path) -> None:
    command = "openba", "convert", "training", "--quiet", "--out"
    assert run_here(*command, "whole")[0] == 0
    process = start_warm(*command, "model", code=SLOW)
    wait_for_change((folder / PART).exists, process, False)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not (folder / "model").exists()
    assert run_here(*command, "model")[0] == 0
    for path in (folder / "whole").iterdir():
        assert (folder / "model" / path.name).read_bytes() == path.read_bytes()
    assert list_names() == ["model", "training", "whole"]


def test_two_processes(folder: Path) -> None:
    command = "openba", "convert", "training", "--quiet", "--out", "model"
    first = start_warm(*command, code=SLOW)
    wait_for_change((folder / PART).exists, first, False)
    check_line(run_here(*command), "another process is writing a model into it")
    assert finish(first)[0] == 0
    assert list_names() == ["model", "training"]
