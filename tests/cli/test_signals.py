"""Ctrl-C and SIGTERM: one line or none, an exit code, and nothing left behind."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from commands import SMALL, start, write_pairs
from prediction_rows import interrupt_reader

# Tells when the command's own code begins: what Python does before is not ours to answer for.
BEGIN = """
import sys
sys.stderr.write("begun\\n")
sys.stderr.flush()
"""


def interrupt(process: "subprocess.Popen[str]", delay: float, number: int) -> tuple[int, str]:
    assert process.stderr is not None
    assert process.stderr.readline() == "begun\n"
    time.sleep(delay)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert output == ""
    return process.returncode, errors


# Beside other tests the command might be later than the first of these moments.
@pytest.mark.alone
@pytest.mark.parametrize("delay", [0.01, 0.03, 0.06, 0.1, 0.2, 0.3])
def test_ctrl_c_while_a_command_starts(tmp_path: Path, delay: float) -> None:
    """torch's import takes seconds; within it an exception may be swallowed or changed."""
    process = start("recsys", "recommend", tmp_path, "1", code=BEGIN)
    assert interrupt(process, delay, signal.SIGINT) == (130, "lmcore: interrupted\n")


def test_sigterm_while_a_command_starts(tmp_path: Path) -> None:
    process = start("recsys", "recommend", tmp_path, "1", code=BEGIN)
    assert interrupt(process, 0.1, signal.SIGTERM) == (143, "")


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """A shell starts what runs behind `&` with SIGINT ignored."""
    ignore = f"signal.signal(signal.SIGINT, signal.SIG_IGN){BEGIN}"
    code, errors = interrupt(start("ner", "score", tmp_path / "none", code=ignore), 0, 2)
    assert code == 2
    assert errors.endswith("none: No such file or directory\n")


@pytest.mark.parametrize("command", ["score", "align"])
def test_sigterm_while_a_file_is_read(tmp_path: Path, command: str) -> None:
    source, target = tmp_path / "endless.jsonl", tmp_path / "out"
    os.mkfifo(source)
    more = [target] if command == "align" else ["--html", target]
    process = start("ner", command, source, *more)
    assert interrupt_reader(process, source, signal.SIGTERM) == ("", "")
    assert process.returncode == 143
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_sigterm_while_a_state_is_written(tmp_path: Path) -> None:
    """Stopped between the two names of a file: the temporary one is removed."""
    data, out = write_pairs(tmp_path / "pairs.txt"), tmp_path / "run"
    slow = """
import time
import torch
save = torch.save
def save_slowly(state, file):
    file.write(b"half")
    sys.stderr.write("begun\\n")
    sys.stderr.flush()
    time.sleep(60)
torch.save = save_slowly
"""
    arguments = ["--data", data, "--out", out, "--epochs", 3, *SMALL]
    process = start("recsys", "train", "plain", *arguments, code=slow)
    assert interrupt(process, 0, signal.SIGTERM) == (143, "")
    left = {path.name for path in out.iterdir()}
    assert not [name for name in left if name.startswith(".")]
    assert not list((out / "states").glob("step-*"))
    assert not list(out.rglob(".lmcore-*"))


def test_sigterm_while_a_model_is_written(tmp_path: Path) -> None:
    slow = """
import time
import lmcore.training.folder as folder
def finish_slowly(*arguments, **options):
    sys.stderr.write("begun\\n")
    sys.stderr.flush()
    time.sleep(60)
folder.write_manifest = finish_slowly
"""
    data, out = write_pairs(tmp_path / "pairs.txt"), tmp_path / "run"
    arguments = ["--data", data, "--out", out, "--epochs", 1, *SMALL]
    process = start("recsys", "train", "plain", *arguments, code=slow)
    assert interrupt(process, 0, signal.SIGTERM) == (143, "")
    assert not list(out.rglob(".*"))
