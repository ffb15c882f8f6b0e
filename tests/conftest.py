"""Settings and folders that all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("parity")

# A kernel module decides when it is imported whether it runs compiled or interpreted, so this
# stands before any test module. The device file tells without importing torch.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

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
    max_examples=int(_EXAMPLES or 250),
    print_blob=True,
)
settings.load_profile(os.environ.get("LMCORE_PROFILE", "dev"))


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
