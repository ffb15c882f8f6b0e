"""Adapters are short, and the document shows them as they are."""

import ast
from pathlib import Path

import pytest

from adapter_files import FILES, ROOT

DOCUMENT = ROOT / "docs/recsys.md"


def _end_of_head(node: ast.ClassDef | ast.FunctionDef) -> int:
    if isinstance(node, ast.ClassDef):
        return node.lineno
    return max(
        [
            argument.end_lineno or 0
            for argument in ast.walk(node.args)
            if isinstance(argument, ast.arg)
        ]
    )


def count_code(node: ast.ClassDef) -> int:
    """The lines on which code stands: no docstring, comment or blank line."""
    lines = {
        line
        for part in ast.walk(node)
        if isinstance(part, ast.stmt) and not isinstance(part, ast.ClassDef | ast.FunctionDef)
        if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        for line in range(part.lineno, (part.end_lineno or part.lineno) + 1)
    }
    for part in ast.walk(node):
        if isinstance(part, ast.ClassDef | ast.FunctionDef):
            lines |= set(range(part.lineno, max(part.lineno, _end_of_head(part)) + 1))
    return len(lines)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_adapters_have_at_most_20_lines(file: Path) -> None:
    classes = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]
    assert len(classes) == 2
    for node in classes:
        assert 5 < count_code(node) <= 20, (node.name, count_code(node))


def test_there_is_one_for_each_library() -> None:
    assert [file.stem for file in FILES] == ["ufn_in_rectools", "ufn_in_replay"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_document_shows_the_code(file: Path) -> None:
    code = file.read_text(encoding="utf-8").split('"""\n', 1)[-1].strip()
    assert f"```py\n{code}\n```\n" in DOCUMENT.read_text(encoding="utf-8")
