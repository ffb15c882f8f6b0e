"""Exceptions become one line on standard error and an exit code."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer

_OUT_OF_MEMORY = re.compile("OutOfMemory|can't allocate memory")


@contextmanager
def failures_as_lines() -> Iterator[None]:
    """One line on standard error and exit code 2, or 130 after Ctrl-C; no traceback."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("lmcore: interrupted", err=True)
        raise typer.Exit(128 + signal.SIGINT) from None
    except (FloatingPointError, ImportError, OSError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename}: {error.strerror}"
        else:
            message = str(error)
        typer.echo("lmcore: " + message.replace("\n", "\\n"), err=True)
        raise typer.Exit(2) from None
    except (MemoryError, RuntimeError) as error:
        # torch has a type of its own for a GPU, and none for the CPU.
        names = (type(error).__name__, str(error))
        if isinstance(error, MemoryError) or any(map(_OUT_OF_MEMORY.search, names)):
            reason = str(error).strip().splitlines() or [""]
            typer.echo(f"lmcore: out of memory: {reason[0]}", err=True)
            raise typer.Exit(2) from None
        raise
