"""Settings and folders that all tests share."""

import importlib.util
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from turns import take_turn

pytest.register_assert_rewrite("parity")

# A kernel module decides when it is imported whether it runs compiled or interpreted, so this
# stands before any test module. The device file tells without importing torch.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Processes of pytest-xdist share the cores, and this stands before torch is imported as well.
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
if "PYTEST_XDIST_WORKER" in os.environ:
    _SHARE = max(1, _CORES // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(_SHARE))

_EXAMPLES = os.environ.get("LMCORE_EXAMPLES")

# Times are the benches' business, and large inputs are meant: only the results count here.
settings.register_profile(
    "dev",
    deadline=None,
    max_examples=int(_EXAMPLES or 60),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "ci",
    settings.get_profile("dev"),
    derandomize=True,
    max_examples=int(_EXAMPLES or 100),
    print_blob=True,
)
settings.load_profile(os.environ.get("LMCORE_PROFILE", "dev"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto` takes the cores that this process may use."""
    return _CORES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that run alone come last, so that nobody waits for them in between."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Tests marked `alone` have no test of another process beside them."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    # The folder of this process stands in one of the whole run.
    folder = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    with take_turn(folder, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def default_configurations() -> Iterator[None]:
    """On a GPU too: to compile and time all candidates for each small shape would take minutes."""
    if "TRITON_INTERPRET" in os.environ or importlib.util.find_spec("triton") is None:
        yield
        return
    from lmcore.ops.tuning import pin

    with pin([]):
        yield


def find_folder(variable: str) -> Path:
    """Returns the folder that an environment variable names; skips the test without it.

    With `LMCORE_REQUIRE_DATA=1`, as in CI, a missing variable is a failure.
    """
    value = os.environ.get(variable)
    if value is None or value == "":
        reason = f"{variable} is not set: it names a folder of files that are not redistributed"
        if os.environ.get("LMCORE_REQUIRE_DATA") == "1":
            pytest.fail(f"{reason}, and LMCORE_REQUIRE_DATA=1 asks for them", pytrace=False)
        pytest.skip(reason)
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{variable} is {value}, which is not a folder", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real data sets (`LMCORE_DATA`)."""
    return find_folder("LMCORE_DATA")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """What the papers' own code computes (`LMCORE_GOLDEN`)."""
    return find_folder("LMCORE_GOLDEN")
