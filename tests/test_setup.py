"""A bare machine: what is installed, from where, and how often the library is compiled."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTION = "lmcore-research"
# Documents and code, as a user reads them; the lock file and what is built are not.
FOLDERS = ["python", "docs", "kernels", "benches", "examples", "tests", "rust", ".ci"]
SUFFIXES = {".md", ".py", ".rs", ".toml", ""}

# Targets that a `make` above these tests would pass on.
OUTER = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "SETTING_UP", "VENV")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in OUTER}


def commands(target: str, venv: Path) -> list[str]:
    """What make would run for a target where nothing has been set up."""
    done = subprocess.run(
        ["make", "-n", target, f"VENV={venv}"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


# The Makefile.


@pytest.mark.parametrize("target", ["demo", "test", "lint", "examples", "dev"])
def test_library_is_compiled_by_one_command(target: str, tmp_path: Path) -> None:
    """Two build front ends in one set-up may disagree about flags, and compile everything twice."""
    builds = [
        line
        for line in commands(target, tmp_path / "venv")
        if "--editable" in line or "maturin develop" in line
    ]
    assert len(builds) == 1, builds


@pytest.mark.parametrize("target", ["demo", "test"])
def test_only_our_package_is_built_without_isolation(target: str, tmp_path: Path) -> None:
    """A source package of others, as seqeval, builds with what it asks for."""
    installs = [line for line in commands(target, tmp_path / "venv") if "pip install" in line]
    ours = [line for line in installs if line.endswith(" --editable .")]
    assert len(ours) == 1
    for line in installs:
        assert ("--no-build-isolation" in line) == ("--no-deps" in line) == (line in ours), line


def test_build_backend_is_that_of_the_environment(tmp_path: Path) -> None:
    """pip calls `maturin` by name: another one on the PATH would compile everything again."""
    done = subprocess.run(
        ["make", "--eval", "path: ; @echo $$PATH", "path", f"VENV={tmp_path}"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split(":")[0] == str(tmp_path / "bin")


def test_requirements_are_those_of_the_extras() -> None:
    extras = PROJECT["optional-dependencies"]
    done = subprocess.run(
        [sys.executable, ".ci/requirements.py", "dev"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lists = [
        PROJECT["dependencies"],
        *extras.values(),
    ]
    expected = {one for some in lists for one in some if not one.startswith(DISTRIBUTION)}
    base = PROJECT["dependencies"]
    assert done.stdout.splitlines()[: len(base)] == base
    assert sorted(done.stdout.splitlines()) == sorted(expected)


# Names of packages.


def named_packages(text: str) -> list[str]:
    """What `pip install` is told to install in a text: words that are no options."""
    found: list[str] = []
    for arguments in re.findall(r"pip install ((?:\"[^\"\n]+\"|[^\s`\"'\\);:,]+| )+)", text):
        words = re.findall(r"\"[^\"]+\"|\S+", arguments)
        found += [word.strip('"') for word in words if not word.startswith("-")]
    return found


def test_no_hint_names_a_stranger() -> None:
    """`lmcore` on PyPI is somebody else's package."""
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    hints = 0
    for path in files:
        if path.suffix not in SUFFIXES or path == Path(__file__):
            continue
        if "work" in path.relative_to(ROOT).parts:  # what `.ci/run` makes
            continue
        text = path.read_text(encoding="utf-8")
        for package in named_packages(text):
            hints += 1
            assert not re.match(r"lmcore(?!-research\b)", package), (path, package)
        assert re.findall(r"(?<![-.\w])lmcore\[", text) == [], path
    assert hints > 2


def test_hints_name_extras_that_exist() -> None:
    extras = set(PROJECT["optional-dependencies"])
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"pip install \"(?:\.|lmcore-research)\[([\w,]+)\]\"", text)
    assert {extra for group in named for extra in group.split(",")} <= extras
    assert named


# What CI starts from.


def run_ci(tmp_path: Path, make: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`.ci/run` in a folder of its own, with a script in place of make."""
    clone, tools = tmp_path / "clone", tmp_path / "tools"
    (clone / ".ci").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    shutil.copy(ROOT / ".ci/run", clone / ".ci/run")
    tools.mkdir()
    (tools / "make").write_text(f"#!/bin/sh\n{make}\n")
    (tools / "make").chmod(0o755)
    path = f"{tools}:{ENVIRONMENT['PATH']}"
    variables = {"PATH": path, **variables}
    variables["PATH"] = variables["PATH"].replace("{path}", path)
    return subprocess.run(
        [clone / ".ci/run"],
        env={**ENVIRONMENT, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_of_the_caller_leaks_into_ci(tmp_path: Path) -> None:
    active = tmp_path / "active"
    (active / "bin").mkdir(parents=True)
    other = tmp_path / "other"
    other.mkdir()
    for tool in (active / "bin/python3", other / "maturin"):
        tool.write_text("#!/bin/sh\nexit 9\n")
        tool.chmod(0o755)
    leaks = {
        "VIRTUAL_ENV": str(active),
        "CONDA_PREFIX": str(active),
        "CONDA_DEFAULT_ENV": "base",
        "PYTHONPATH": "/somewhere",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_EXTRA_INDEX_URL": "https://example.org",
        "CARGO_TARGET_DIR": "/somewhere",
        "RUSTC_WRAPPER": "sccache",
        "PYTEST_ADDOPTS": "-x",
        "LMCORE_EXAMPLES": "1",
        "LMCORE_WHEEL": "/somewhere",
    }
    kept = {"PIP_CERT": "/certificates", "PIP_DEFAULT_TIMEOUT": "7", "PIP_PROXY": "http://a:1"}
    done = run_ci(
        tmp_path,
        "env; exit 3",
        PATH=f"{active}/bin:{other}:{{path}}",
        PIP_FIND_LINKS="/wheels",
        PIP_NO_CACHE_DIR="0",
        **leaks,
        **kept,
    )
    lines = [line.partition("=") for line in done.stdout.splitlines() if "=" in line]
    seen = {name: value for name, _, value in lines}
    assert seen.keys() & leaks.keys() == set(), done.stderr
    assert {name: seen[name] for name in kept} == kept
    assert seen["PIP_NO_CACHE_DIR"] == "1"
    wheels = Path(seen["PIP_FIND_LINKS"])
    assert wheels.is_relative_to(tmp_path / "clone")
    assert list(wheels.iterdir()) == []
    folders = seen["PATH"].split(":")
    assert str(tmp_path / "tools") in folders
    assert not {str(active / "bin"), str(other)} & set(folders)
    assert Path(seen["PYTHON"]).is_absolute()
    assert seen["LMCORE_REQUIRE_DATA"] == "1"
    assert not seen["VENV"].startswith(".venv")


def test_a_failing_step_fails_ci(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # The first step passes, the second does not, and a third must not be reached.
    make = f'echo "$1" >> {log}; [ "$(wc -l < {log})" -lt 2 ] || exit 3'
    done = run_ci(tmp_path, make)
    assert done.returncode == 3
    assert len(log.read_text().splitlines()) == 2
