"""Several processes that train together on this machine, as torchrun starts them."""

import os
import socket
import subprocess
import sys
from typing import Any

import warm

# Now and then torch's threads abort a process that has done its work, while it ends: one in some
# hundred. What is tested has ended before.
END = """
import os, sys
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
"""
# Should it abort before, it says where it was.
START = """
import faulthandler
faulthandler.enable()
"""


def start(
    code: str, count: int, *arguments: object, **more: str
) -> "list[warm.Process | subprocess.Popen[str]]":
    """Starts so many processes that run `code`, whose `sys.argv[1:]` are the arguments."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path), **more,
    }  # fmt: skip
    environments = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    return [warm.start(START + code + END, *arguments, env=each) for each in environments]


def run(code: str, count: int, *arguments: object, **more: Any) -> list[str]:
    """What each of them printed, once all ended well."""
    processes = start(code, count, *arguments, **more)
    ended = [process.communicate(timeout=300) for process in processes]
    failed = [
        f"exit code {process.returncode} after {output[-500:]!r}: {errors}"
        for process, (output, errors) in zip(processes, ended, strict=True)
        if process.returncode
    ]
    assert failed == [], failed[0]
    return [output for output, _ in ended]
