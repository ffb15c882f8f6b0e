"""What the documents and examples show is what happens."""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import warm

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])
EXAMPLES = sorted(ROOT.glob("examples/*.py"))

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")
_NAME = re.compile(r"`(lmcore(?:\.\w+)+)`")


def _blocks(document: Path, language: str) -> list[str]:
    found = _BLOCK.findall(document.read_text(encoding="utf-8"))
    return [body for name, body in found if name == language]


def _with(language: str) -> list[Path]:
    return [document for document in DOCUMENTS if _blocks(document, language)]


def _without_code(text: str) -> str:
    return _BLOCK.sub("", text)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


_LMCORE = "from lmcore.cli import main; main()"
_EXAMPLE = """
import runpy, sys, warnings
warnings.simplefilter("error")
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def _run(code: str, *arguments: str | Path, folder: Path) -> tuple[int | None, str]:
    """The exit code, and what is printed and told, as a terminal shows it."""
    process = warm.start(code, *arguments, cwd=folder, stderr=subprocess.STDOUT)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


KERNELS = [path.stem for path in sorted(ROOT.glob("kernels/*.py")) if ">>>" in path.read_text()]


@pytest.mark.parametrize("name", KERNELS)
def test_examples_of_kernels(name: str) -> None:
    """Collected as files they would be imported twice, and torch would crash in their operators."""
    pytest.importorskip("triton")
    tried = doctest.testmod(importlib.import_module(f"lmcore.kernels.{name}"))
    assert tried.attempted
    assert not tried.failed


@pytest.mark.parametrize("document", _with("python"), ids=_name)
def test_python_blocks_run_and_print_their_comments(document: Path) -> None:
    """Blocks share one namespace; lines that are comments alone are what the block prints."""
    namespace: dict[str, Any] = {"__name__": "__document__"}
    for block in _blocks(document, "python"):
        expected = [line[2:] for line in block.splitlines() if line.startswith("# ")]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, document.name, "exec"), namespace)
        assert printed.getvalue().splitlines() == expected


def test_readme_starts_with_ten_lines_of_code() -> None:
    first = _blocks(ROOT / "README.md", "python")[0]
    code = [line for line in first.splitlines() if line and not line.startswith("#")]
    assert len(code) <= 10


def test_readme_is_a_front_page() -> None:
    """What a system needs more of stands in its guide."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


def _commands(block: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block and what is shown under each."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


@pytest.mark.parametrize("document", _with("console"), ids=_name)
def test_console_blocks_show_what_happens(document: Path, tmp_path: Path) -> None:
    """`cat` of a file that is not there yet makes it; everything else is run and compared."""
    status = 0
    for block in _blocks(document, "console"):
        for command, shown in _commands(block):
            program, *arguments = shlex.split(command)
            if program == "cat":
                path = tmp_path / arguments[0]
                if not path.exists():
                    path.write_text(shown, encoding="utf-8")
                output = path.read_text(encoding="utf-8")
            elif command == "echo $?":
                output = f"{status}\n"
            else:
                assert program == "lmcore", command
                code, output = _run(_LMCORE, *arguments, folder=tmp_path)
                status = code or 0
            if re.match(r"lmcore recsys (train|evaluate|recommend) ", command):
                _assert_numbers_near(output, shown)
            else:
                assert output == shown, command


def _assert_numbers_near(output: str, shown: str) -> None:
    """Equal but for numbers with a decimal point, which may differ by 0.001.

    Sums of floats depend on the CPU and on the number of threads, and hundreds of steps add that
    up: scores of the guide's model then differ by less than 0.0001. It trains without dropout,
    whose draws depend on how torch was built.
    """
    assert _NUMBER.sub("#", output) == _NUMBER.sub("#", shown)
    numbers = [[float(number) for number in _NUMBER.findall(text)] for text in (output, shown)]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)


def test_numbers_near_are_those_of_the_text() -> None:
    _assert_numbers_near("user 1: HR@1 -0.2504", "user 1: HR@1 -0.2500")
    for other in ("user 1: HR@1 -0.252", "user 2: HR@1 -0.25", "user 1: HR@1 0.25", "user 1: HR@1"):
        with pytest.raises(AssertionError):
            _assert_numbers_near(other, "user 1: HR@1 -0.25")


@pytest.mark.parametrize("example", EXAMPLES, ids=_name)
def test_example_runs_anywhere(example: Path, tmp_path: Path) -> None:
    code, output = _run(_EXAMPLE, example, folder=tmp_path)
    assert code == 0, output
    assert output
    assert not list(tmp_path.iterdir()), "an example leaves no files"


@pytest.mark.parametrize("example", EXAMPLES, ids=_name)
def test_example_is_short(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    targets = _LINK.findall(_without_code(document.read_text(encoding="utf-8")))
    paths = [target.partition("#")[0] for target in targets if "://" not in target]
    missing = [path for path in paths if path and not (document.parent / path).exists()]
    assert not missing


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/**/*.md")), ids=_name)
def test_names_in_the_docs_exist(document: Path) -> None:
    for name in _NAME.findall(_without_code(document.read_text(encoding="utf-8"))):
        pkgutil.resolve_name(name)
