"""The command `lmcore`: `app`, the version and `main`.

This module is imported before any other of a command. It imports next to nothing, and says what
signals do, so that Ctrl-C ends a command in one line from its first milliseconds on.

| signal | while a command starts | while it works |
| --- | --- | --- |
| SIGINT, Ctrl-C | one line, exit code 130, at once | the same, once files are whole or removed |
| SIGTERM | exit code 143 at once | exit code 143, once files are whole or removed |

A signal that was ignored when the process started stays ignored (`nohup`, a shell's `&`). Under
torchrun SIGTERM ends a process at once: one that waits for others inside of a collective could
not answer, and torchrun ends all together.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # importing `typing` takes longer than all of this
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from typer import Typer

    app: Typer

__all__ = ["app", "main"]

_LINE = b"lmcore: interrupted\n"
_handled: list[int] = []


def __getattr__(name: str) -> Any:
    if name == "app":
        from lmcore.cli.commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Runs the command line."""
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if os.environ.get("WORLD_SIZE", "1") != "1":
        del own[signal.SIGTERM]
    _handled[:] = [number for number, handler in own.items() if signal.getsignal(number) == handler]
    end_at_once()
    from lmcore.cli.commands import app

    app(prog_name="lmcore")


def end_at_once() -> None:
    """Lets signals end the process without more ado: there is nothing to finish or to remove.

    An exception would not do here: raised within an import, it may be swallowed or changed.
    """
    for number in _handled:
        signal.signal(number, _end)


def unwind() -> None:
    """Lets signals raise, so that what a command has begun is removed."""
    for number in _handled:
        signal.signal(number, _raise)


def _end(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        os.write(2, _LINE)
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    end_at_once()  # a second signal does not wait
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
