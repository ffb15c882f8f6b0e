"""What is kept is found again under the same conditions, or not believed."""

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.reproduce.claim import Measurement
from lmcore.reproduce.conditions import digest_sources, find_conditions
from lmcore.reproduce.measurements import Kept, find_measurement, keep_measurement

CONDITIONS = {"lmcore": "0.1", "device": "a machine"}
VALUES = {"score": 0.1, "none": math.nan, "much": math.inf, "little": -math.inf, "tiny": 5e-324}
KEPT = Kept(measurement=Measurement(values=VALUES), seconds=1.5)


def find(folder: Path, **changes: str) -> Kept | None:
    return find_measurement(folder, "a_claim", "quick", 1, {**CONDITIONS, **changes})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    keep_measurement(tmp_path, "a_claim", "quick", 1, CONDITIONS, KEPT)
    return tmp_path / "measurements" / "a_claim-quick-1.json"


def test_numbers_come_back_as_they_were(file: Path) -> None:
    found = find(file.parents[1])
    assert found is not None
    assert repr(found) == repr(KEPT)


def test_texts_come_back_as_they_were(tmp_path: Path) -> None:
    texts = {"pair 1": {"5 steps": "a\n\x1b b", "20 steps": ""}, "pair 2": {}}
    kept = Kept(measurement=Measurement(values=VALUES, texts=texts), seconds=0.5)
    keep_measurement(tmp_path, "a_claim", "quick", 1, CONDITIONS, kept)
    assert repr(find(tmp_path)) == repr(kept)


@given(values=st.dictionaries(st.text(max_size=5), st.floats(), max_size=5))
def test_any_numbers_do(values: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("kept")
    kept = Kept(measurement=Measurement(values=values), seconds=0.0)
    keep_measurement(folder, "a_claim", "quick", 1, CONDITIONS, kept)
    assert repr(find(folder)) == repr(kept)


def test_another_claim_size_seed_or_condition_finds_nothing(file: Path) -> None:
    folder = file.parents[1]
    assert find(folder, device="another") is None
    assert find(folder, torch="2") is None
    text = file.read_text(encoding="utf-8")
    for name in ("b_claim-quick-1", "a_claim-full-1", "a_claim-quick-2"):
        # Neither does a file under another's name.
        file.with_name(f"{name}.json").write_text(text, encoding="utf-8")
    assert find_measurement(folder, "b_claim", "quick", 1, CONDITIONS) is None
    assert find_measurement(folder, "a_claim", "full", 1, CONDITIONS) is None
    assert find_measurement(folder, "a_claim", "quick", 2, CONDITIONS) is None


def test_no_flipped_bit_gives_other_numbers(file: Path) -> None:
    content = file.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        found = find(file.parents[1])
        # White space may change, and the case of a digit's letter.
        assert found is None or repr(found) == repr(KEPT), bit


def test_no_other_file_is_believed_or_waited_for(file: Path) -> None:
    folder = file.parents[1]
    text = file.read_text(encoding="utf-8")
    content = json.loads(text)
    for damage in (
        "",
        text[: len(text) // 2],
        "[" * 200_000,
        "null",
        json.dumps({**content, "seed": 2}),
        json.dumps({name: content[name] for name in content if name != "sha256"}),
        text.replace('"seconds"', '"seconds": 1, "seconds"'),
        text.replace("0.1", "NaN"),
        text.replace("0.1", "1e999"),
    ):
        file.write_text(damage, encoding="utf-8")
        assert find(folder) is None
    file.write_bytes(b"\xff")
    assert find(folder) is None
    with open(file, "wb") as large:
        large.truncate(1 << 40)
    assert find(folder) is None
    file.unlink()
    assert find(folder) is None
    file.mkdir()
    assert find(folder) is None
    file.rmdir()
    os.mkfifo(file)
    assert find(folder) is None
    file.unlink()
    file.symlink_to("/dev/zero")
    assert find(folder) is None


def test_sources_are_all_that_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "lmcore"
    (package / "part").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "part" / "module.py").write_text("a = 1")
    monkeypatch.setattr("lmcore.__file__", str(package / "__init__.py"))

    def digest() -> str:
        digest_sources.cache_clear()
        return digest_sources()

    try:
        first = digest()
        (package / "part" / "module.pyc").write_text("b")
        assert digest() == first
        (package / "part" / "module.py").write_text("a = 2")
        second = digest()
        (package / "part" / "module.py").rename(package / "part" / "other.py")
        third = digest()
        (package / "_core.so").write_bytes(b"c")
        assert len({first, second, third, digest()}) == 4
    finally:
        digest_sources.cache_clear()


def test_conditions_are_versions_sources_and_the_machine() -> None:
    conditions = find_conditions([])
    assert {"lmcore", "Python", "numpy", "torch", "sources", "device"} <= conditions.keys()
    assert "gpu" not in conditions
    assert find_conditions(["cuda"]).keys() - conditions.keys() == {"gpu"}
    assert find_conditions([]) == conditions
