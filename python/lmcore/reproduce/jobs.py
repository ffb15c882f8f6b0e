"""Measuring in several processes, each with one thread, and in one alone where time counts.

A worker is a process of its own that reads jobs from a pipe and writes numbers to another, one
line of JSON each. It ends when the pipe does: a killed report leaves none behind.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, TextIO

from lmcore.reproduce.catalogue import CLAIMS
from lmcore.reproduce.claim import Measurement, Size
from lmcore.reproduce.measurements import Kept

# What libraries read when they are loaded to know how many threads to start.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# The same search path as here, whatever the folder of work holds.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from lmcore.reproduce import jobs"
)
_PATIENCE_SECONDS = 0.4  # for a worker to remove what it made, before it is killed
_LOOK_SECONDS = 0.5


@dataclass(kw_only=True, slots=True, frozen=True)
class Job:
    """Claims of one group that are measured with one seed, one after the other."""

    claims: tuple[str, ...]
    size: Size
    seed: int
    alone: bool = False
    """Whether nothing else runs meanwhile, and with how many threads it likes."""

    def __str__(self) -> str:
        return f"{self.claims[0]}, seed {self.seed}"


@dataclass(kw_only=True, slots=True, frozen=True)
class Result:
    """What came out of a part of a job."""

    job: Job
    claim: str
    kept: Kept


def run_jobs(
    jobs: Sequence[Job], processes: int, look: Callable[[], object] = lambda: None
) -> Generator[Result, None, None]:
    """Yields the results of jobs as they come; those that run alone are done last.

    Args:
        jobs: what to measure.
        processes: how many measure side by side; 1 measures in this process.
        look: called twice a second while nothing comes, and after each result.

    Raises:
        ChildProcessError: a process was killed.
        MemoryError: there was not enough of it.
        RuntimeError: measuring failed; the text has the traceback.
    """
    if processes == 1:
        for job in jobs:
            yield from _measure(job)
            look()
        return
    together = [job for job in jobs if not job.alone]
    alone = [job for job in jobs if job.alone]
    for part, count in ((together, min(processes, len(together))), (alone, 1)):
        if part:
            yield from _run_side_by_side(part, count, look)


def _measure(job: Job) -> Generator[Result, None, None]:
    for claim in job.claims:
        start = time.perf_counter()
        measurement = CLAIMS[claim].measure(job.seed, job.size)
        kept = Kept(measurement=measurement, seconds=time.perf_counter() - start)
        yield Result(job=job, claim=claim, kept=kept)


def _run_side_by_side(
    jobs: Sequence[Job], count: int, look: Callable[[], object]
) -> Generator[Result, None, None]:
    waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    found: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
    for job in (*jobs, *[None] * count):
        waiting.put(job)

    def serve(worker: Worker) -> None:
        """Hands jobs to a worker until there are none; None says that it is done."""
        try:
            while (job := waiting.get()) is not None:
                for result in worker.measure(job):
                    found.put(result)
            found.put(None)
        except BaseException as error:  # for the thread that waits
            found.put(error)

    workers: list[Worker] = []
    try:
        for _ in range(count):
            workers.append(Worker(threads=None if jobs[0].alone else 1))
            threading.Thread(target=serve, args=(workers[-1],), daemon=True).start()
        while count:
            try:
                result = found.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                look()
                continue
            if isinstance(result, BaseException):
                raise result
            if result is None:
                count -= 1
                continue
            yield result
            look()
    finally:
        _end(workers)


class Worker:
    """A process that measures one job after the other.

    Args:
        threads: of the libraries in it; as many as they like if None.
    """

    def __init__(self, threads: int | None) -> None:
        limits = {} if threads is None else dict.fromkeys(_THREADS, str(threads))
        # Ctrl-C is for this process, which ends the others; blocked here, it is blocked there.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{_START}; jobs.work()", json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env={**os.environ, **limits},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def measure(self, job: Job) -> Generator[Result, None, None]:
        """Yields the numbers of the claims of a job.

        Args:
            job: what to measure.

        Raises:
            ChildProcessError: the process was killed.
            MemoryError: there was not enough of it.
            RuntimeError: measuring failed; the text has the traceback.
        """
        pipe, answers = self.process.stdin, self.process.stdout
        assert pipe is not None
        assert answers is not None
        asked = {"claims": job.claims, "size": job.size, "seed": job.seed}
        with suppress(BrokenPipeError):  # the answer will be missing
            pipe.write(json.dumps(asked) + "\n")
            pipe.flush()
        for claim in job.claims:
            line = answers.readline()
            if not line.endswith("\n"):
                raise ChildProcessError(
                    f"{job}: the process that measured it ended with {self.process.wait()}"
                )
            answer = json.loads(line)
            if "error" in answer:
                _raise(f"{job}: {answer['error']}", answer["out_of_memory"])
            measurement = Measurement(values=answer["values"], texts=answer["texts"])
            kept = Kept(measurement=measurement, seconds=answer["seconds"])
            yield Result(job=job, claim=claim, kept=kept)


def _end(workers: Sequence[Worker]) -> None:
    """Lets processes remove what they made, and ends them."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        for pipe in (worker.process.stdin, worker.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def work() -> None:
    """Measures what is asked for, line by line, until nobody asks any more."""
    signal.signal(signal.SIGTERM, _unwind)
    # Whatever is printed meanwhile is for the eyes.
    with open(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(jobs,), daemon=True).start()
        while True:
            asked = json.loads(jobs.get())
            job = Job(claims=tuple(asked["claims"]), size=asked["size"], seed=asked["seed"])
            try:
                for result in _measure(job):
                    found = result.kept.measurement
                    numbers = {name: float(value) for name, value in found.values.items()}
                    texts = {name: dict(parts) for name, parts in found.texts.items()}
                    seconds = result.kept.seconds
                    _answer(answers, {"values": numbers, "texts": texts, "seconds": seconds})
            except Exception as error:
                text = "".join(traceback.format_exception(error))
                first = traceback.format_exception_only(error)[-1].strip()
                memory = isinstance(error, MemoryError)
                _answer(answers, {"error": f"{first}\n{text}", "out_of_memory": memory})


def _answer(answers: TextIO, answer: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    except BrokenPipeError:
        os._exit(1)  # nobody waits for it


def _read(jobs: queue.SimpleQueue[bytes]) -> None:
    # Without a buffer: its lock, held while this waits, would be missed at the exit.
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        for line in pipe:
            jobs.put(line)
    # Nobody waits for numbers any more. Between two jobs this ends the process, too.
    os.kill(os.getpid(), signal.SIGTERM)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def _raise(text: str, out_of_memory: bool) -> NoReturn:
    raise MemoryError(text) if out_of_memory else RuntimeError(text)
