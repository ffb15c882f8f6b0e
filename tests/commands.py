"""Runs of the command `lmcore`: here, or in processes of their own as a shell starts them."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

import warm
from lmcore.cli import app

#: A training run of a moment.
SMALL = [
    "--threads", "1", "--device", "cpu", "--quiet", "--set", "hidden_size=8", "--set",
    "max_length=6", "--set", "batch_size=8", "--set", "negatives=5", "--set", "eval_every=1",
    "--set", "loop.save_every_seconds=0",
]  # fmt: skip


def start(*arguments: object, code: str = "", **options: Any) -> "subprocess.Popen[str]":
    """Starts `lmcore` after `code`; Ctrl-C works where the tests run in the background, too."""
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, "-c", _begin(code), *map(str, arguments)],
        encoding="utf-8",
        errors="surrogateescape",
        env=_environment(),
        **settings,
    )


def start_warm(
    *arguments: object, code: str = "", **options: Any
) -> "warm.Process | subprocess.Popen[str]":
    """The same where torch is imported already, and quickly so: for what does not test a start."""
    return warm.start(_begin(code), *arguments, env=_environment(), **options)


def _begin(code: str) -> str:
    return (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"{code}\nfrom lmcore.cli import main\nmain()"
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}


def finish(process: "warm.Process | subprocess.Popen[str]") -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def run(*arguments: object, code: str = "", **options: Any) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    return finish(start(*arguments, code=code, **options))


def run_warm(*arguments: object, code: str = "", **options: Any) -> tuple[int, str, str]:
    """The same in a process of `start_warm`."""
    return finish(start_warm(*arguments, code=code, **options))


def check_line(result: tuple[int, str | None, str], *texts: str, code: int = 2) -> None:
    """One line on standard error that holds the texts, and nothing on standard output."""
    assert result[0] == code, result
    assert not result[1], result
    assert re.fullmatch(r"lmcore: [^\n]+\n", result[2]), result
    assert [text for text in texts if text not in result[2]] == [], result


def run_here(*arguments: object) -> tuple[int, str, str]:
    """The same as `run` within this process, which takes no start; bugs are raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="lmcore")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@contextmanager
def file_size_limited(size: int) -> Iterator[None]:
    """No file that this process writes grows above so many bytes: a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_pairs(path: Path, users: int = 40, items: int = 30) -> Path:
    """Interactions of users with items from 1, eight each."""
    generator = np.random.default_rng(0)
    rows = [generator.choice(items, 8, replace=False) + 1 for _ in range(users)]
    path.write_text("".join(f"{u} {i}\n" for u, row in enumerate(rows, 1) for i in row))
    return path
