"""How commands end: exceptions become one line on standard error and an exit code.

| what happened | exit code | standard error |
| --- | --- | --- |
| an option or a file cannot be used, memory or a disk is full | 2 | one line |
| Ctrl-C | 130 | one line |
| SIGTERM | 143 | nothing |
| the reader of the output went away (`lmcore ... | head`) | 141 | nothing |
| a bug | 1 | a traceback |

The codes above 128 are those that a shell gives for a process that such a signal ended.

Which exceptions are the user's to mend, and which are bugs, does not show in their types: a
`ValueError` may be our answer to a misspelt option or Python's to our mistake. It shows in who
raised it. lmcore checks what it is given and answers with a `raise` of its own, and the core's
errors are answers too; so an error of these types counts as an answer exactly where its innermost
frame is a `raise` statement in lmcore or a call of the core from `lmcore.ops`. What Python or
another library raises within our code is something that we did not foresee. It is shown whole,
as the bug it is, and mended by a check where the value comes in. Errors of the operating system
and a lack of memory need no such test: they tell about the machine whoever meets them.
"""

from __future__ import annotations

import dis
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from signal import SIGINT, SIGPIPE
from typing import Any, cast

import typer
from typer.core import TyperGroup

from lmcore import cli
from lmcore._extras import DISTRIBUTION, EXTRAS, MissingExtra
from lmcore._text import escape
from lmcore.cli.terminal import STANDARD_OUTPUT, abandon, name_output, say

_OUT_OF_MEMORY = re.compile("OutOfMemory|can't allocate memory|DefaultCPUAllocator")
_RAISE = dis.opmap["RAISE_VARARGS"]
_CALLS = {number for name, number in dis.opmap.items() if "CALL" in name}
# click's class, or that of typer's own copy of click: it depends on typer's version.
_UsageError = cast(type[Any], typer.BadParameter.__base__)

#: The extra that brings a package which a base install lacks.
_EXTRA_OF = {package: extra for extra, packages in EXTRAS.items() for package in packages}


class Commands(TyperGroup):
    """A group of commands that end as the table above says."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Parses, runs and exits; here for what goes wrong around a command."""
        try:
            with _failures_as_lines(lambda: prog_name or ""), name_output(STANDARD_OUTPUT):
                code = super().main(
                    args, prog_name, complete_var, False, windows_expand_args, **extra
                )
                if sys.stdout is not None:
                    sys.stdout.flush()
        except _UsageError as error:
            error.message = "\n".join(map(escape, error.message.split("\n")))
            with suppress(OSError):
                error.show()
            code = error.exit_code
        except typer.Exit as error:
            code = error.exit_code
        except SystemExit as error:
            # The library ends in silence with 1 where a reader went away.
            if not isinstance(error.__context__, BrokenPipeError):
                raise
            code = _end_of_pipe()
        finally:
            cli.end_at_once()
        code = code if isinstance(code, int) else 0
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was chosen."""
        with _failures_as_lines(lambda: f"{ctx.command_path} {ctx.invoked_subcommand or ''}"):
            cli.unwind()
            return super().invoke(ctx)


def make_app(cls: type[Commands] = Commands, help: str | None = None) -> typer.Typer:  # noqa: A002
    """Returns an empty group of commands.

    Args:
        cls: the group's class.
        help: what the group is for.

    Example:
        >>> make_app().registered_commands
        []
    """
    return typer.Typer(
        cls=cls,
        help=help,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


@contextmanager
def starting() -> Iterator[None]:
    """For a command's imports: until they are done there is nothing to clean up after a signal."""
    cli.end_at_once()
    yield
    cli.unwind()


@contextmanager
def _failures_as_lines(name: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise _fail("interrupted", 128 + SIGINT) from None
    except BrokenPipeError:
        raise typer.Exit(_end_of_pipe()) from None
    except OSError as error:
        if error.filename == STANDARD_OUTPUT:
            abandon(sys.stdout)
        place = "" if error.filename is None else f"{error.filename}: "
        raise _fail(place + (error.strerror or str(error))) from None
    except MemoryError as error:
        raise _fail(_describe_memory(error)) from None
    except ImportError as error:
        package = _find_absent(error)
        if package is None:
            raise
        hint = f'pip install "{DISTRIBUTION}[{_EXTRA_OF[package]}]"'
        raise _fail(f"{name().strip()} needs {package}: {hint}") from None
    except (FloatingPointError, IndexError, TypeError, ValueError) as error:
        if not is_answer(error):
            raise
        raise _fail(str(error)) from None
    except RuntimeError as error:
        # torch has a type of its own for a GPU, and none for the CPU.
        if not any(map(_OUT_OF_MEMORY.search, (type(error).__name__, str(error)))):
            raise
        raise _fail(_describe_memory(error)) from None


def is_answer(error: BaseException) -> bool:
    r"""Whether lmcore itself says that what it was given cannot be used.

    Args:
        error: as it was caught.

    Example:
        >>> from lmcore.ops.words import split_words
        >>> try:
        ...     split_words("\ud800")
        ... except ValueError as error:
        ...     print(is_answer(error), is_answer(ValueError("of somebody else")))
        True False
    """
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    operation = trace.tb_frame.f_code.co_code[trace.tb_lasti]
    if module.startswith("lmcore.ops."):
        return operation == _RAISE or operation in _CALLS
    return module.startswith("lmcore.") and operation == _RAISE


def _find_absent(error: ImportError) -> str | None:
    """The package of an extra that is not installed, if that is why an import failed."""
    for cause in (error, error.__cause__):
        package = (getattr(cause, "name", None) or "").partition(".")[0]
        if package in _EXTRA_OF and isinstance(cause, ModuleNotFoundError | MissingExtra):
            return package
    return None


def _describe_memory(error: BaseException) -> str:
    reason = str(error).strip().splitlines()
    return f"out of memory: {reason[0]}" if reason else "out of memory"


def _fail(message: str, code: int = 2) -> typer.Exit:
    cli.end_at_once()
    try:
        say(f"lmcore: {message}")
    except OSError:  # nobody listens
        abandon(sys.stderr)
    return typer.Exit(code)


def _end_of_pipe() -> int:
    abandon(sys.stdout)
    return 128 + SIGPIPE
