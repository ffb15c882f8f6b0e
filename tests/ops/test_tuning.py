"""`ops.tuning`: the fastest candidate by a clock that is set here, and pins in its place."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmcore.kernels import tuning as kernels
from lmcore.kernels.tuning import choose
from lmcore.ops.tuning import Choice, list_choices, pin, read_choices, write_choices

SMALL, LARGE, HUGE = ({"BLOCK": size, "num_warps": 4} for size in (16, 64, 256))
CANDIDATES = [SMALL, LARGE, HUGE]
GPU = torch.device("cuda", 0)


class OutOfResources(Exception):  # noqa: N818
    """As the compiler's."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Milliseconds of each block on a GPU that is not there; change them to change the device."""
    times = {16: 3.0, 64: 1.0, 256: 2.0}

    def measure(launch: Callable[[Any], object], configuration: Any, count: int) -> float:
        for _ in range(count):
            launch(configuration)
        return times[configuration["BLOCK"]]

    monkeypatch.setattr(kernels, "_timed", {})
    monkeypatch.setattr(kernels, "_pins", [])
    monkeypatch.setattr(kernels, "_measure", measure)
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(kernels, "_devices", {})
    return times


def ask(
    rows: int = 100, dtype: torch.dtype = torch.float32, device: torch.device = GPU,
    candidates: Any = CANDIDATES, launch: Any = lambda configuration: None, name: str = "kernel",
) -> Any:  # fmt: skip
    return choose(name, {"rows": rows, "columns": 3}, dtype, device, candidates, launch)


def test_the_fastest_is_chosen_once_for_a_class(clock: dict[int, float]) -> None:
    launched: list[int] = []

    def launch(configuration: Any) -> None:
        launched.append(configuration["BLOCK"])

    assert ask(launch=launch) == LARGE
    assert set(launched) == {16, 64, 256}
    launched.clear()
    clock[16] = 0.1
    assert ask(65, launch=launch) == ask(128, launch=launch) == LARGE
    assert launched == []
    # Another class, type, kernel.
    assert ask(129) == ask(64) == ask(dtype=torch.bfloat16) == ask(name="other") == SMALL
    assert [(c.kernel, c.sizes["rows"], c.dtype, c.configuration) for c in list_choices()] == [
        ("kernel", 128, "float32", LARGE), ("kernel", 256, "float32", SMALL),
        ("kernel", 64, "float32", SMALL), ("kernel", 128, "bfloat16", SMALL),
        ("other", 128, "float32", SMALL),
    ]  # fmt: skip
    assert {choice.device for choice in list_choices()} == {"A GPU"}


def test_the_same_kind_of_gpu_is_timed_once(
    clock: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask() == LARGE
    clock[256] = 0.5
    assert ask(device=torch.device("cuda", 1)) == LARGE
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Another GPU")
    assert ask(device=torch.device("cuda", 2)) == HUGE


def test_classes_end_at_powers_of_two() -> None:
    rounded = [kernels._round_up(size) for size in (0, 1, 2, 3, 4, 5, 8, 9, 2**31, 2**31 + 1)]
    assert rounded == [1, 1, 2, 4, 4, 8, 8, 16, 2**31, 2**32]


@pytest.mark.usefixtures("clock")
def test_nothing_is_timed_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(configuration: Any) -> None:
        raise AssertionError

    assert ask(candidates=[HUGE], launch=launch) == HUGE
    assert ask(device=torch.device("cpu"), launch=launch) == SMALL
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "INTERPRETED", True)
        assert ask(launch=launch) == SMALL
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert ask(launch=launch) == SMALL
    with pin([]):
        assert ask(launch=launch) == SMALL
    assert list_choices() == []
    # What was taken for want of a clock is not kept.
    assert ask() == LARGE


@pytest.mark.usefixtures("clock")
def test_candidates_that_do_not_fit_the_device() -> None:
    def refuse(*blocks: int) -> Callable[[Any], None]:
        def launch(configuration: Any) -> None:
            if configuration["BLOCK"] in blocks:
                raise OutOfResources(configuration["BLOCK"])

        return launch

    assert ask(launch=refuse(64)) == HUGE
    assert ask(1, launch=refuse(64, 256)) == SMALL
    with pytest.raises(OutOfResources, match="16"):
        ask(2, launch=refuse(16, 64, 256))

    def fail(configuration: Any) -> None:
        raise RuntimeError("out of bounds")

    with pytest.raises(RuntimeError, match="out of bounds"):
        ask(4, launch=fail)
    assert len(list_choices()) == 2


def test_turns_rotate(clock: dict[int, float]) -> None:
    """Each candidate is the first of a round at some time, and a turn takes long enough."""
    launched: list[int] = []
    clock.update({16: 0.1, 64: 0.05, 256: 100.0})
    ask(launch=lambda configuration: launched.append(configuration["BLOCK"]))
    rounds = launched[6:]
    one, two, three = [16] * 2, [64] * 4, [256]
    expected = [
        *(one + two + three), *(two + three + one), *(three + one + two),
        *(one + two + three), *(two + three + one),
    ]  # fmt: skip
    assert rounds == expected


@pytest.mark.usefixtures("clock")
def test_pins_hold_in_all_threads_until_the_block_ends() -> None:
    pins = [make_choice(HUGE), make_choice(SMALL, dtype="bfloat16")]
    seen: list[Any] = []
    with pin(pins):
        assert ask() == ask(65) == HUGE
        assert ask(dtype=torch.bfloat16) == SMALL
        assert ask(1000) == ask(name="other") == SMALL
        thread = threading.Thread(target=lambda: seen.append(ask()))
        thread.start()
        thread.join()
        with pin([]):
            assert ask() == SMALL
        assert ask() == HUGE
    assert seen == [HUGE]
    assert list_choices() == []
    assert ask() == LARGE
    with pytest.raises(KeyError), pin(pins):
        raise KeyError
    assert ask() == LARGE


def make_choice(configuration: Any, dtype: str = "float32", device: str = "A GPU") -> Choice:
    return Choice(
        kernel="kernel", sizes={"rows": 128, "columns": 4}, dtype=dtype, device=device,
        configuration=configuration,
    )  # fmt: skip


def test_pins_hold_on_any_device() -> None:
    with pin([make_choice(LARGE, device="cpu")]):
        assert ask(device=torch.device("cpu")) == LARGE


@pytest.mark.usefixtures("clock")
def test_pins_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^choices must be for different shapes: kernel stands"):
        pin([make_choice(HUGE), make_choice(LARGE)]).__enter__()
    old = {"BLOCK": 32}
    text = r"^choices must be of this version's candidates: \{'BLOCK': 32\} is none of kernel's$"
    with pin([make_choice(old)]), pytest.raises(ValueError, match=text):
        ask()


@pytest.mark.usefixtures("clock")
def test_a_file_of_choices(tmp_path: Path) -> None:
    ask()
    ask(1000, dtype=torch.float16)
    chosen = list_choices()
    write_choices(tmp_path / "choices.json")
    assert read_choices(tmp_path / "choices.json") == chosen
    kernels._timed.clear()
    with pin(read_choices(tmp_path / "choices.json")):
        assert ask() == LARGE


ROW = {"kernel": "a", "sizes": {"rows": 1}, "dtype": "float32", "device": "b",
       "configuration": {"BLOCK": 1}}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "Expecting property name"),
        ("{}", "expected a list: got dict"),
        ("[1]", "row 0 must have kernel, sizes, dtype, device, configuration"),
        (json.dumps([ROW, ROW | {"more": 1}]), "row 1 must have kernel"),
        (json.dumps([ROW | {"kernel": 1}]), "kernel of row 0 must be a text: got 1"),
        (json.dumps([ROW | {"sizes": [1]}]), "sizes of row 0 must be names with integers"),
        (json.dumps([ROW | {"configuration": {"BLOCK": 1.5}}]), "configuration of row 0 must be"),
        (json.dumps([ROW | {"configuration": {"BLOCK": True}}]), "configuration of row 0 must be"),
    ],
)
def test_files_of_something_else(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "choices.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="not choices of configurations") as error:
        read_choices(path)
    assert str(error.value).startswith(f"{path}: ")
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("set_it", "expected"),
    [
        ("torch.set_float32_matmul_precision('high')", "tf32"),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "tf32"),
        ("torch.backends.cuda.matmul.fp32_precision = 'ieee'", "ieee"),
    ],
)
def test_products_are_as_precise_as_torchs(set_it: str, expected: str) -> None:
    """In a process of its own: torch does not forget which of its ways was used."""
    if " = " in set_it and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("torch has one way alone")
    code = f"""
import torch
from lmcore.kernels._precision import find_precision
{set_it}
print(find_precision(torch.float32), find_precision(torch.bfloat16))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [expected, "ieee"]
