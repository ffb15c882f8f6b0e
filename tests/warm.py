"""Processes that start at once: forked from one that has imported what all of them need.

torch and transformers take seconds of each process that imports them. Where it does not matter how
a process started, tests take one of these instead of an interpreter of their own; what a start does
(imports, early signals, a standard stream that is closed) is tested with real ones.
"""

import atexit
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

_SERVER = """
import sys
sys.path[:0] = {path!r}
import warm
request = warm.serve({address!r})
if request is not None:
    sys.argv = ["-c", *request.arguments]
    warm.end(lambda: exec(compile(request.code, "<string>", "exec"), {{"__name__": "__main__"}}))
"""
_EVERYTHING = """
import importlib, pkgutil
import torch, transformers, lmcore
for found in pkgutil.walk_packages(lmcore.__path__, "lmcore."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""


def start(code: str, *arguments: object, **options: Any) -> "Process | subprocess.Popen[str]":
    """Starts a process that runs `code`, whose `sys.argv[1:]` are the arguments.

    Where processes cannot be forked after all that is imported, an interpreter starts.
    """
    if sys.platform == "linux":
        return Process(code, *arguments, **options)
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, encoding="utf-8", errors="surrogateescape", **settings)


class _Request(NamedTuple):
    code: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]


class Process:
    """A process that runs code, as `subprocess.Popen` shows one of text in UTF-8."""

    def __init__(
        self,
        code: str,
        *arguments: object,
        env: dict[str, str] | None = None,
        cwd: str | Path | None = None,
        stdin: int | Any | None = None,
        stdout: int | Any | None = subprocess.PIPE,
        stderr: int | Any | None = subprocess.PIPE,
    ) -> None:
        self.returncode: int | None = None
        self.stdin, reads = _open(stdin, 0)
        self.stdout, writes = _open(stdout, 1)
        self.stderr, tells = _open(writes if stderr == subprocess.STDOUT else stderr, 2)
        self._status = socket.socket(socket.AF_UNIX)
        self._status.connect(_start_server())
        request = json.dumps(
            [code, [*map(str, arguments)], str(cwd or Path.cwd()), dict(env or os.environ)]
        )
        socket.send_fds(self._status, [b"."], [reads, writes, tells])
        self._status.sendall(request.encode("utf-8", "surrogateescape") + b"\n")
        for each in (reads, writes, tells):
            os.close(each)
        self.pid = _receive(self._status)

    def poll(self) -> int | None:
        """The exit code, if the process has ended."""
        if self.returncode is None and _is_ready(self._status, 0):
            self.returncode = _receive(self._status)
            self._status.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once the process has ended."""
        if self.returncode is None and not _is_ready(self._status, timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, text: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """All that the process writes, and waits for its end."""
        found: dict[str, str] = {}

        def read(name: str) -> None:
            with getattr(self, name) as stream:
                found[name] = stream.read()

        readers = [
            threading.Thread(target=read, args=(name,), daemon=True)
            for name in ("stdout", "stderr")
            if getattr(self, name) is not None
        ]
        for reader in readers:
            reader.start()
        if self.stdin is not None:
            if text:
                self.stdin.write(text)
            self.stdin.close()
        end = time.monotonic() + timeout if timeout is not None else None
        self.wait(timeout)
        for reader in readers:
            reader.join(None if end is None else max(0.0, end - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return found.get("stdout", ""), found.get("stderr", "")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _open(given: Any, number: int) -> tuple[Any, int]:
    """Our end of a standard stream, if there is one, and a new descriptor of the process' end."""
    if given == subprocess.PIPE:
        reads, writes = os.pipe()
        ours, theirs = (writes, reads) if number == 0 else (reads, writes)
        mode = "w" if number == 0 else "r"
        return open(ours, mode, encoding="utf-8", errors="surrogateescape"), theirs
    if given == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    if given is None:
        return None, os.dup(number)
    return None, os.dup(given if isinstance(given, int) else given.fileno())


def _receive(connection: socket.socket) -> int:
    """The number of a line; nothing behind it is read, so that one can wait for more."""
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(1) or b"?\n"
    return int(line)


def _is_ready(connection: socket.socket, timeout: float | None) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(timeout))


_server: "tuple[subprocess.Popen[bytes], str] | None" = None


def _start_server() -> str:
    """Where the process answers that others are forked from; it ends with this one."""
    global _server
    if _server is None or _server[0].poll() is not None:
        address = str(Path(tempfile.mkdtemp(prefix="lmcore-")) / "socket")
        path = [str(Path(__file__).parent), *sys.path]
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER.format(path=path, address=address)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Threads of a process are not forked: none may be there.
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        _server = process, address
        atexit.register(_stop_server, process)
    return _server[1]


def _stop_server(process: "subprocess.Popen[bytes]") -> None:
    process.communicate()  # Its standard input ends, and so does it.


def serve(address: str) -> _Request | None:
    """Imports everything and forks a process for each request; returns within that process.

    Returns nothing once the process ended that started this one.
    """
    exec(_EVERYTHING, {})
    assert threading.active_count() == 1
    # What is shared stays so: collecting garbage would write to all of it.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(address)
        listener.listen(64)
        os.write(1, b"ready\n")
        selector.register(listener, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            if any(key.fileobj == 0 for key, _ in selector.select()):
                Path(address).unlink()
                Path(address).parent.rmdir()
                return None
            connection, _ = listener.accept()
            if os.fork() == 0:
                selector.close()
                listener.close()
                return _answer(connection)
            connection.close()


def end(work: Callable[[], None]) -> NoReturn:
    """Runs the work and ends the process as an interpreter does, but for taking itself apart.

    That would copy all memory which is shared with the process above it: seconds of work.
    """
    code = 0
    try:
        work()
        threading._shutdown()  # type: ignore[attr-defined]
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    except BaseException as error:
        code = 1
        sys.excepthook(type(error), error, error.__traceback__)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = 120
    os._exit(code)


def _answer(connection: socket.socket) -> _Request:
    """Returns in a new process what it shall do, and tells of its end from the one above it."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r", encoding="utf-8", errors="surrogateescape") as lines:
        request = _Request(*json.loads(lines.readline()))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        for each in streams:
            os.close(each)
        connection.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "r" if number == 0 else "w"
        errors = "backslashreplace" if number == 2 else "surrogateescape"
        file = open(number, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        file.reconfigure(line_buffering=number == 2 or file.isatty())
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)
    return request
