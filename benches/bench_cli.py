"""The start of the command line, against the import of the library that parses it."""

from __future__ import annotations

import subprocess
import sys

from timing import compare, print_conditions, save

HEAVY = ("torch", "transformers", "numpy")
# What the installed command does; its own file would be one more to find.
MAIN = "import sys; from lmcore.cli import main; sys.argv[1:] = {arguments!r}; main()"


def run(code: str, *options: str) -> str:
    """Returns what a new process of Python prints."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code], check=True, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def start(*arguments: str) -> str:
    """Returns what the command prints."""
    return run(MAIN.format(arguments=list(arguments)))


def main() -> None:
    """Runs all cases."""
    print_conditions()
    for arguments in (["--help"], ["ner", "--help"]):
        assert start(*arguments).startswith("Usage: lmcore")
        report = run(MAIN.format(arguments=arguments), "-X", "importtime")
        imported = {line.rpartition("|")[2].strip() for line in report.splitlines()}
        assert "typer" in imported
        assert imported.isdisjoint(HEAVY)
    rows = compare(
        "cli",
        "a new process, interpreter included",
        ("import typer", lambda: run("import typer")),
        ("lmcore --help", lambda: start("--help"), ""),
        ("lmcore --version", lambda: start("--version"), ""),
        ("lmcore ner --help", lambda: start("ner", "--help"), ""),
        ("lmcore recsys train --help", lambda: start("recsys", "train", "--help"), ""),
        rounds=15,
        repeats=3,
    )
    save("cli", rows)


if __name__ == "__main__":
    main()
