"""Who runs alone has no test beside it, and is not kept waiting by those that come later."""

import subprocess
import sys
import time
from pathlib import Path

from turns import take_turn

TAKE = """
import pathlib, sys, time
from turns import take_turn
folder, name, alone, seconds = sys.argv[1:]
folder = pathlib.Path(folder)
(folder / f"{name} asks").touch()
with take_turn(folder, alone=alone == "True"):
    with (folder / "log").open("a") as log:
        print(name, "begins", file=log, flush=True)
        time.sleep(float(seconds))
        print(name, "ends", file=log, flush=True)
"""


def start(folder: Path, name: str, *, alone: bool, seconds: float) -> "subprocess.Popen[bytes]":
    """Starts a process that takes a turn, and waits until it asks for it."""
    arguments = [str(folder), name, str(alone), str(seconds)]
    process = subprocess.Popen([sys.executable, "-c", TAKE, *arguments], cwd=Path(__file__).parent)
    while not (folder / f"{name} asks").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.2)  # now it waits for the lock, if anything keeps it
    return process


def test_turns(tmp_path: Path) -> None:
    with take_turn(tmp_path, alone=False):
        beside = start(tmp_path, "beside", alone=False, seconds=0)
        assert beside.wait(timeout=60) == 0
        alone = start(tmp_path, "alone", alone=True, seconds=0.3)
        later = start(tmp_path, "later", alone=False, seconds=0)
        assert (tmp_path / "log").read_text().splitlines() == ["beside begins", "beside ends"]
    assert (alone.wait(timeout=60), later.wait(timeout=60)) == (0, 0)
    lines = (tmp_path / "log").read_text().splitlines()[2:]
    assert lines == ["alone begins", "alone ends", "later begins", "later ends"]
