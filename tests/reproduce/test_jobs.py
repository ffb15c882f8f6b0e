"""Processes that measure: what goes wrong in one is said here, and none is left behind."""

import contextlib
import os
import time
from pathlib import Path

import pytest

from lmcore.reproduce.jobs import Job, Worker, run_jobs
from stopped_runs import read_present

GOOD = Job(claims=("matching_rescue",), size="tiny", seed=0)
UNKNOWN = Job(claims=("no_such_claim",), size="tiny", seed=3)


def test_what_fails_in_a_process_is_told_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="no_such_claim, seed 3: KeyError: 'no_such_claim'") as e:
        list(run_jobs([UNKNOWN, GOOD], 2))
    assert "Traceback" in str(e.value)
    with pytest.raises(KeyError):
        list(run_jobs([UNKNOWN], 1))


def test_results_of_a_job_that_fails_later_come_first() -> None:
    job = Job(claims=("matching_rescue", "no_such_claim"), size="tiny", seed=0)
    results = run_jobs([job], 2)
    assert next(results).claim == "matching_rescue"
    with pytest.raises(RuntimeError, match="KeyError"):
        next(results)


def test_a_lack_of_memory_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import lmcore.reproduce.jobs as jobs\ndef measure(seed, size): raise MemoryError('much')"
    )
    patch = f"{code}\njobs._measure = lambda job: iter([measure(0, 0)])\njobs.work()"
    monkeypatch.setattr("lmcore.reproduce.jobs._START", f"import sys, json\n{patch}\npass")
    with pytest.raises(MemoryError, match="matching_rescue, seed 0: MemoryError: much"):
        list(run_jobs([GOOD], 2))


def test_what_is_printed_meanwhile_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import os, json, sys, lmcore.reproduce.jobs as jobs\nmeasure = jobs._measure"
    shout = "os.system('echo one'); print('two', flush=True)"
    texts = {"pair 1": {"20 steps": "a\n\x1b b"}}  # they come with the numbers
    add = f"result.kept.measurement.texts.update({texts!r})"
    each = f"for result in measure(job):\n        {add}\n        yield result"
    patch = f"def loud(job):\n    {shout}\n    {each}\njobs._measure = loud"
    monkeypatch.setattr("lmcore.reproduce.jobs._START", f"{code}\n{patch}\npass")
    (result,) = run_jobs([GOOD], 2)
    assert result.claim == "matching_rescue"
    assert result.kept.measurement.texts == texts
    output, errors = capfd.readouterr()
    assert output == ""
    assert errors == "one\ntwo\n"


def test_a_killed_process_is_told() -> None:
    worker = Worker(threads=1)
    worker.process.kill()
    with (
        contextlib.closing(worker.measure(GOOD)) as results,
        pytest.raises(ChildProcessError, match=r"matching_rescue, seed 0: .* ended with -9"),
    ):
        next(results)
    assert worker.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.close()
    assert worker.process.stdout is not None
    worker.process.stdout.close()


def list_children() -> set[str]:
    own = Path("/proc", str(os.getpid()), "task")
    return set(b" ".join(read_present(own.glob("*/children"))).decode().split())


@pytest.mark.alone
def test_who_stops_listening_ends_the_processes() -> None:
    long = Job(claims=("matching_rescue",), size="full", seed=0)
    # What tests before this one left, such as a tracker of shared memory, is not looked at.
    children: set[str] = set()
    before = list_children()

    def look() -> None:
        children.update(list_children() - before)

    results = run_jobs([GOOD, long, long], 2, look)
    assert next(results).job == GOOD
    look()
    assert len(children) >= 2
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 3
    assert not any(Path("/proc", child).exists() for child in children)
