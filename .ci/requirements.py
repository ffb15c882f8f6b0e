"""Prints what extras of the project bring, one requirement per line, for `pip install -r`.

pip reads extras only of a project that it builds, and it would look for our own name, which
extras use for one another, at the index. Dependencies are fetched without either.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def expand(project: dict[str, Any], requirements: list[str]) -> Iterator[str]:
    """The requirements, with extras of the project itself replaced by what these bring."""
    own = re.compile(rf"{re.escape(project['name'])}\[([\w,-]+)\]")
    for requirement in requirements:
        extras = own.fullmatch(requirement)
        if extras is None:
            yield requirement
            continue
        for extra in extras[1].split(","):
            yield from expand(project, project["optional-dependencies"][extra])


def main(extras: list[str]) -> None:
    """Prints the dependencies of the base install and of the extras."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    asked = [f"{project['name']}[{extra}]" for extra in extras]
    print(*dict.fromkeys(expand(project, [*project["dependencies"], *asked])), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
