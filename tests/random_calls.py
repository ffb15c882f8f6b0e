"""Random calls of everything that `lmcore._core` and `lmcore.ops` offer.

A call is a function of (target, seed): arguments that belong together, of which some are changed
or exchanged for something else. It must return or raise one of a few kinds of error; a panic,
another kind, an abort or no answer is a failure. Calls are made in a process of their own, with
bounded memory, so that its end is seen and told.

    python tests/random_calls.py --examples 1000 --seed 1 [--only negatives]
"""

import argparse
import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lmcore.ops
from lmcore import _core
from lmcore.ops.negatives import Batch, PackedBatch
from random_arguments import find_arguments
from wild_values import change, wild

# Address space that a process of calls may take besides what it starts with.
MEMORY_BYTES = 3 << 30
TIMEOUT_SECONDS = 120

CORE_ERRORS = (TypeError, ValueError, IndexError, OverflowError, MemoryError, OSError)
# In Python a wrong type is what lacks an attribute or a key; a number too large is a wrong value.
OPS_ERRORS = (TypeError, ValueError, IndexError, MemoryError, OSError, AttributeError, KeyError)


class Target(NamedTuple):
    """What is called, and by which class it is a method or a property."""

    name: str
    owner: type | None
    function: Any
    errors: tuple[type[Exception], ...]


def find_targets() -> dict[str, Target]:
    """Returns all that can be called, found by looking: nothing can be left out."""
    targets: dict[str, Target] = {}

    def add(prefix: str, name: str, value: Any, errors: tuple[type[Exception], ...]) -> None:
        targets[f"{prefix}.{name}"] = Target(f"{prefix}.{name}", None, value, errors)
        if not inspect.isclass(value):
            return
        for method, function in vars(value).items():
            is_used = callable(function) or inspect.isdatadescriptor(function)
            if method[0] != "_" and is_used:
                full = f"{prefix}.{name}.{method}"
                targets[full] = Target(full, value, function, errors)

    for name in _core.__all__:
        if name[0] != "_":
            add("_core", name, getattr(_core, name), CORE_ERRORS)
    for found in pkgutil.iter_modules(lmcore.ops.__path__):
        if found.name[0] == "_":
            continue
        module = importlib.import_module(f"lmcore.ops.{found.name}")
        for name, value in vars(module).items():
            home = getattr(value, "__module__", None) or ""
            is_shown = name in getattr(module, "__all__", ()) and home.startswith("lmcore.ops.")
            is_own = home == module.__name__ or is_shown
            is_record = isinstance(value, type) and issubclass(value, tuple)
            if name[0] != "_" and is_own and callable(value) and not is_record:
                add(found.name, name, value, OPS_ERRORS)
    return targets


# Calls.


class Call(NamedTuple):
    """A target with its arguments, and where methods find their object."""

    target: Target
    arguments: list[Any]
    keywords: dict[str, Any]
    source: random.Random


class Calls:
    """Calls of all targets, as functions of (target, seed)."""

    def __init__(self) -> None:
        self.targets = find_targets()
        self.arguments = find_arguments()

    def make(self, name: str, seed: int) -> Call:
        """Returns a call; methods get their object when they are called."""
        source, target = random.Random(f"{name} {seed}"), self.targets[name]
        if name not in self.arguments:
            return Call(target, [], {}, source)
        arguments, keywords = self.arguments[name](source)
        for _ in range(source.choice([0, 0, 1, 1, 1, 2, 3])):
            place = source.randrange(len(arguments) + len(keywords) + 1)
            alter = (lambda _, value: change(source, value)) if source.random() < 0.6 else _wild
            if place < len(arguments):
                arguments[place] = alter(source, arguments[place])
            elif place < len(arguments) + len(keywords):
                key = sorted(keywords)[place - len(arguments)]
                keywords[key] = alter(source, keywords[key])
        if source.random() < 0.02:
            arguments = arguments[1:] if source.random() < 0.5 else [*arguments, wild(source)]
        return Call(target, arguments, keywords, source)

    def run(self, call: Call) -> str:
        """Returns "returned" or the kind of error, which is one of those that may come."""
        target, errors = call.target, call.target.errors
        try:
            if target.owner is None:
                target.function(*call.arguments, **call.keywords)
            else:
                held = self._make_object(target, call.source)
                if callable(target.function):
                    target.function(held, *call.arguments, **call.keywords)
                self._look_at(target, held)
        except errors as error:
            return type(error).__name__
        return "returned"

    def _make_object(self, target: Target, source: random.Random) -> Any:
        """Returns an object in use: with arguments that fit, after some calls that fit."""
        owner = target.name.rpartition(".")[0]
        while True:
            arguments, keywords = self.arguments[owner](source)
            with contextlib.suppress(*target.errors):
                held = self.targets[owner].function(*arguments, **keywords)
                break
        others = [name for name in self.arguments if name.startswith(f"{owner}.")]
        for _ in range(source.randrange(4)):
            other = source.choice(others)
            arguments, keywords = self.arguments[other](source)
            with contextlib.suppress(*target.errors):
                self.targets[other].function(held, *arguments, **keywords)
        return held

    def _look_at(self, target: Target, held: Any) -> None:
        """Reads all properties, and what else takes no arguments: what was done left no harm."""
        owner = target.name.rpartition(".")[0]
        for name, other in self.targets.items():
            if name.startswith(f"{owner}.") and inspect.isdatadescriptor(other.function):
                getattr(held, name.rpartition(".")[2])
        for name in ("state", "state_dict"):
            if hasattr(held, name):
                getattr(held, name)()


def _wild(source: random.Random, _: Any) -> Any:
    return wild(source)


def describe(value: Any) -> str:
    """Returns a value as a line that says what it is, arrays with their layout."""
    if isinstance(value, np.ndarray):
        flags = "".join(
            letter
            for letter, is_set in (
                ("C", value.flags.c_contiguous),
                ("A", value.flags.aligned),
                ("W", value.flags.writeable),
            )
            if is_set
        )
        shown = value.reshape(-1)[:20].tolist() if value.size < 1 << 20 else "..."
        return f"array({shown}, {value.dtype.str}, {value.shape}, {flags})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, (Batch, PackedBatch)):
        return f"Batch({', '.join(describe(getattr(value, name)) for name in value.__slots__)})"
    return repr(value)[:300]


# The process that makes the calls.


class Outcome(NamedTuple):
    """How a call ended: "returned", a kind of error, or what must not be."""

    kind: str
    failure: str


def serve() -> None:
    """Makes the calls that are asked for on standard input, one a line."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    calls = Calls()
    start = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = start + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    requests = iter(sys.stdin.readline, "")
    for line in requests:
        name, seed = line.split()
        call = calls.make(name, int(seed))
        try:
            outcome = Outcome(calls.run(call), "")
        except BaseException as error:
            outcome = Outcome(type(error).__name__, f"{type(error).__name__}: {error}")
        print(json.dumps(outcome), file=answers, flush=True)


class Worker:
    """A process that makes calls; it is started again when it ends."""

    def __init__(self, before: str = "") -> None:
        """Starts nothing yet; `before` is code that the process runs before its calls."""
        tests = str(Path(__file__).resolve().parent)
        start = f"import sys; sys.path.insert(0, {tests!r}); import random_calls"
        self._code = f"{start}\n{before}\nrandom_calls.serve()"
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None

    def call(self, name: str, seed: int) -> Outcome:
        """Returns how a call ended, also if the process ended with it."""
        process = self._process
        if process is None:
            self._folder = tempfile.TemporaryDirectory()  # some arguments are paths
            process = self._process = subprocess.Popen(
                [sys.executable, "-c", self._code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=self._folder.name,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{name} {seed}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], TIMEOUT_SECONDS)[0]:
            self.close()
            return Outcome("no answer", f"no answer for {TIMEOUT_SECONDS} s")
        answer = process.stdout.readline()
        if answer:
            return Outcome(*json.loads(answer))
        code = process.wait()
        self.close()
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        return Outcome("died", f"the process ended with {how}")

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def explain(calls: Calls, name: str, seed: int) -> str:
    """Returns the arguments of a call, and how to make it again."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        call = calls.make(name, seed)
    parts = [describe(value) for value in call.arguments]
    parts += [f"{key}={describe(value)}" for key, value in call.keywords.items()]
    again = f"python tests/random_calls.py --only {name} --seed {seed} --examples 1"
    return f"{name}({', '.join(parts)})\n    {again}"


def main() -> int:
    """Makes many calls, and tells how they ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1000, help="calls of each target")
    parser.add_argument("--seed", type=int, default=0, help="the first call's number")
    parser.add_argument("--only", default="", help="targets that hold this text")
    options = parser.parse_args()
    calls, worker, failures = Calls(), Worker(), 0
    begin = time.monotonic()
    for name in sorted(calls.targets):
        if options.only not in name:
            continue
        kinds: Counter[str] = Counter()
        for seed in range(options.seed, options.seed + options.examples):
            outcome = worker.call(name, seed)
            kinds[outcome.kind] += 1
            if outcome.failure:
                failures += 1
                print(f"{outcome.failure}\n    {explain(calls, name, seed)}", flush=True)
        ends = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        print(f"{name}: {kinds.total()} calls: {ends}", flush=True)
    worker.close()
    print(f"{failures} failures, {time.monotonic() - begin:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
