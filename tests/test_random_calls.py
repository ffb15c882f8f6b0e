"""Random calls of all that `lmcore._core` and `lmcore.ops` offer end as they may."""

from collections.abc import Iterator

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import random_calls

CALLS = random_calls.Calls()


@pytest.fixture(scope="module")
def worker() -> Iterator[random_calls.Worker]:
    worker = random_calls.Worker()
    yield worker
    worker.close()


def test_every_target_has_arguments() -> None:
    """A new export needs arguments that belong together: random ones alone do not go far."""
    properties = {name for name, target in CALLS.targets.items() if not callable(target.function)}
    assert set(CALLS.arguments) == set(CALLS.targets) - properties
    assert len([name for name in CALLS.targets if name.startswith("_core.")]) > 30


@pytest.mark.parametrize("name", sorted(CALLS.targets))
# A number is a call: a smaller one is another call, and no simpler.
@settings(phases=[Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_calls_return_or_refuse(worker: random_calls.Worker, name: str, seed: int) -> None:
    outcome = worker.call(name, seed)
    assert not outcome.failure, f"{outcome.failure}\n{random_calls.explain(CALLS, name, seed)}"


def test_calls_with_arguments_that_belong_together_return() -> None:
    """Else nothing but refusals would be tried."""
    worker = random_calls.Worker()
    for name in CALLS.arguments:
        kinds = [worker.call(name, seed).kind for seed in range(60)]
        assert kinds.count("returned") >= 3, (name, kinds)
    worker.close()


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("import os; os.abort()", "the process ended with SIGABRT"),
        ("raise KeyError('x')", "KeyError: 'x'"),
        ("raise BaseException('panic')", "BaseException: panic"),
    ],
)
def test_what_must_not_be_is_seen(code: str, failure: str) -> None:
    """Panics are no `Exception`; aborts end the process. Both are told, and calls go on."""
    worker = random_calls.Worker(
        "def run(self, call):\n"
        "    if call.target.name == '_core.split_words':\n"
        f"        {code}\n"
        "    return 'returned'\n"
        "random_calls.Calls.run = run"
    )
    for _ in range(2):
        assert worker.call("_core.split_words", 1).failure == failure
        assert worker.call("_core.normalize_text", 1) == ("returned", "")
    worker.close()
