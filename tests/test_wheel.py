"""Built wheels: for which interpreters and systems they are, and what they hold."""

import os
import re
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python/lmcore"
WHEELS = [Path(line) for line in os.environ.get("LMCORE_WHEEL", "").splitlines()]
NAMED = pytest.mark.skipif(
    not WHEELS, reason="LMCORE_WHEEL is not set: it names built wheels, as `make test` does"
)
# Interpreters that load a library, and how its name begins.
LIBRARIES = {
    "cp311-abi3": "_core.abi3.so",
    "cp314-cp314t": "_core.cpython-314t",
    "cp315-abi3.abi3t": "_core.abi3t",
}
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
VERSION = CARGO["package"]["version"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def split_name(wheel: Path) -> tuple[str, str]:
    """The interpreters, and the systems, that a wheel's name says it is for."""
    name = wheel.name.removeprefix(f"lmcore_research-{VERSION}-").removesuffix(".whl")
    python, abi, systems = name.split("-")
    return f"{python}-{abi}", systems


def find_library(names: list[str]) -> str:
    (name,) = (name for name in names if re.match(r"lmcore/_core\.(?!pyi)", name))
    return name


@NAMED
def test_wheels_are_those_that_were_asked_for() -> None:
    """A free-threaded interpreter that is found first turns the stable ABI off with a warning."""
    built = sorted(split_name(wheel)[0] for wheel in WHEELS)
    if len(WHEELS) > 1:
        assert built == sorted(LIBRARIES)
    elif sys.version_info >= (3, 15):
        assert built == ["cp315-abi3.abi3t"]
    else:
        is_free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
        assert built == ["cp314-cp314t" if is_free else "cp311-abi3"]


@NAMED
@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: split_name(wheel)[0])
def test_names_say_what_is_held(wheel: Path) -> None:
    interpreters, systems = split_name(wheel)
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"lmcore_research-{VERSION}.dist-info/WHEEL").decode()
        name = find_library(archive.namelist())
        library = archive.read(name)
    python, abis = interpreters.split("-")
    tags = {f"{python}-{abi}-{system}" for abi in abis.split(".") for system in systems.split(".")}
    assert set(re.findall(r"^Tag: (.*)$", text, re.MULTILINE)) == tags
    assert Path(name).name.startswith(LIBRARIES[interpreters])
    # What the library asks of glibc is no newer than its name says.
    promised = [int(number) for number in re.findall(r"manylinux_2_(\d+)_", systems)]
    asked = [int(number) for number in re.findall(rb"\0GLIBC_2\.(\d+)", library)]
    assert asked or sys.platform != "linux"
    assert not promised or max(asked) <= min(promised)


@NAMED
@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: split_name(wheel)[0])
def test_wheels_hold_the_package(wheel: Path) -> None:
    # Kernels stand in a folder of their own.
    expected = {file.relative_to(PACKAGE.parent).as_posix() for file in PACKAGE.rglob("*.py")}
    expected |= {f"lmcore/kernels/{file.name}" for file in (ROOT / "kernels").glob("*.py")}
    expected |= {"lmcore/_core.pyi", "lmcore/py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = f"lmcore_research-{VERSION}.dist-info"
        scripts = archive.read(f"{metadata}/entry_points.txt").decode()
        description = archive.read(f"{metadata}/METADATA").decode()
    assert len(names) == len(set(names))
    held = {name for name in names if not name.startswith(f"{metadata}/") and name[-1] != "/"}
    held -= {"lmcore/kernels/README.md", find_library(names)}
    assert sorted(held) == sorted(expected)
    assert "lmcore=lmcore.cli:main" in scripts.replace(" ", "")
    assert f"\nVersion: {VERSION}\n" in description
    assert "\nName: lmcore-research\n" in description
    required = re.findall(r"^Requires-Dist: ([\w-]+)([^\n]*)$", description, re.MULTILINE)
    base = {"numpy", "rich", "tqdm", "typer"}
    assert {name for name, rest in required if "extra ==" not in rest} == base
    extras = re.findall(r"^Provides-Extra: (.*)$", description, re.MULTILINE)
    assert set(extras) == set(PROJECT["optional-dependencies"])
    assert any(name.startswith(f"{metadata}/licenses/") for name in names)
