"""What the tests of rows share."""

from pathlib import Path

import pytest

from scored_rows import write_many_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the examples of a property share."""
    return tmp_path_factory.mktemp("predictions")


@pytest.fixture(scope="module")
def many_rows(folder: Path) -> Path:
    return write_many_rows(folder)
