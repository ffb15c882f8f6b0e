"""The speed tables of the documents are made of the rows of the benches."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benches/tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_results(tables: ModuleType) -> None:
    """`python benches/tables.py` writes them."""
    found = tables.documents()
    assert {path.name for path in found} == {"README.md", "speed.md"}
    for path, text in found.items():
        assert path.read_text(encoding="utf-8") == text, path.name


def test_each_finding_is_told_apart(tables: ModuleType) -> None:
    keys = [finding.key for finding in tables.FINDINGS]
    assert len(set(keys)) == len(keys)


def test_numbers_are_rounded_to_three_digits(tables: ModuleType) -> None:
    key = tables.FINDINGS[0].key
    rows = {finding.key: {"ratio_median": "1"} for finding in tables.FINDINGS}
    for number, shown in [("0.61532", "0.615"), ("9.99", "9.99"), ("999.6", "1,000")]:
        rows[key] = {"ratio_median": number}
        assert tables.format_short(rows).splitlines()[2].endswith(f"| {shown} |")


def test_a_row_that_is_not_there_is_an_error(tables: ModuleType) -> None:
    rows = tables.read_rows()
    del rows[tables.FINDINGS[-1].key]
    for table in (tables.format_long, tables.format_short):
        with pytest.raises(KeyError, match="22,363 users"):
            table(rows)


def test_a_document_has_one_table(tables: ModuleType) -> None:
    marks = "<!-- table:speed -->\nold\n<!-- /table:speed -->\n"
    filled = tables.fill_in(f"a\n{marks}b\n", "new\n")
    assert filled == "a\n<!-- table:speed -->\nnew\n<!-- /table:speed -->\nb\n"
    for text in ("", marks + marks):
        with pytest.raises(ValueError, match=f"got {text.count('old')}"):
            tables.fill_in(text, "new\n")
