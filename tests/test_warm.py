"""Processes of `warm` are those that `subprocess` would start, but for how they start."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere interpreters start")


def test_what_it_is_given(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1:], os.getcwd(), dict(os.environ), sys.stdin.read())"
    process = warm.Process(code, 1, "é", cwd=tmp_path, env={"ONLY": "this"}, stdin=subprocess.PIPE)
    output, errors = process.communicate("東", timeout=60)
    assert output == f"['1', 'é'] {tmp_path} {{'ONLY': 'this'}} 東\n"
    assert (errors, process.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('no')", 1, "no\n"),
        ("import atexit, os; atexit.register(os.write, 2, b'end')", 0, "end"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
    ],
)
def test_how_it_ends(code: str, status: int, told: str) -> None:
    process = warm.Process(code)
    assert process.communicate(timeout=60) == ("", told)
    assert process.returncode == process.poll() == process.wait() == status


def test_what_is_raised_is_told() -> None:
    process = warm.Process("1 / 0", stderr=subprocess.STDOUT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.splitlines()[-1]) == (
        1,
        "ZeroDivisionError: division by zero",
    )


def test_signals_reach_the_process_itself() -> None:
    code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    process = warm.Process(code)
    assert int(process.stdout.readline()) == process.pid != os.getpid()
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.01)
    process.terminate()
    assert process.wait(timeout=60) == -signal.SIGTERM
    process.communicate()


def test_processes_share_nothing() -> None:
    """What one of them does to a module, the next does not see."""
    code = "import json; print(hasattr(json, 'mine')); json.mine = 1"
    assert [warm.Process(code).communicate(timeout=60)[0] for _ in range(2)] == ["False\n"] * 2
