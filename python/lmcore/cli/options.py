"""Options that several commands share, and the types that options have.

Each numeric option is a `Whole` with a range that its help states, and each name of a file a
`name_of_file`, which must not be empty: an empty text is what a shell makes of a variable that is
not set, and no way to leave an option out.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from lmcore.cli.terminal import say
from lmcore.ops.entities import SCHEMES

MOST = 2**31 - 1
"""Above this nothing can be counted or allocated here, and libraries in C start to wrap around."""


class Whole:
    """A parser of whole numbers within a range.

    Only digits of ASCII are read: neither `1_000` nor the digits of other scripts, which Python's
    `int` takes.

    Args:
        low: the least that is allowed.
        high: the most.

    Example:
        >>> Whole(1, 9)("4")
        4
    """

    __name__ = "whole number"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    @property
    def range(self) -> str:
        """The range as help and errors say it."""
        return f"{self.low} to {self.high}"

    def __call__(self, text: Any) -> int:
        """Returns the number.

        Raises:
            typer.BadParameter: the text is no such number, or outside of the range.
        """
        digits = str(text)
        # Twenty digits hold every bound, and Python refuses to convert thousands of them.
        if re.fullmatch("[+-]?0*[0-9]{1,20}", digits) and self.low <= int(digits) <= self.high:
            return int(digits)
        shown = digits if len(digits) <= 40 else digits[:40] + "..."
        raise typer.BadParameter(f"expected a whole number from {self.range}: got {shown!r}")


def whole(low: int, high: int, *names: str, text: str, metavar: str = "N") -> Any:
    """Returns a numeric option whose help states its range.

    Args:
        low: the least that is allowed.
        high: the most.
        names: such as `--top`, `-k`; that of the parameter if there are none.
        text: what the help says.
        metavar: what stands for the number there.

    Example:
        >>> whole(1, 9, text="Number of files.").help
        'Number of files.  [1 to 9]'
    """
    parser = Whole(low, high)
    return typer.Option(*names, parser=parser, metavar=metavar, help=f"{text}  [{parser.range}]")


class Decimal:
    """A parser of numbers with a decimal point within a range.

    Args:
        low: the least that is allowed.
        high: the most.

    Example:
        >>> Decimal(0, 2)("0.7")
        0.7
    """

    __name__ = "number"

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    @property
    def range(self) -> str:
        """The range as help and errors say it."""
        return f"{self.low:g} to {self.high:g}"

    def __call__(self, text: Any) -> float:
        """Returns the number.

        Raises:
            typer.BadParameter: the text is no such number, or outside of the range.
        """
        digits = str(text)
        is_number = re.fullmatch(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?", digits)
        if is_number and self.low <= float(digits) <= self.high:
            return float(digits)
        shown = digits if len(digits) <= 40 else digits[:40] + "..."
        raise typer.BadParameter(f"expected a number from {self.range}: got {shown!r}")


def decimal(low: float, high: float, *, text: str) -> Any:
    """Returns an option of a number with a decimal point, whose help states its range.

    Args:
        low: the least that is allowed.
        high: the most.
        text: what the help says.

    Example:
        >>> decimal(0, 2, text="Of scores.").help
        'Of scores.  [0 to 2]'
    """
    parser = Decimal(low, high)
    return typer.Option(parser=parser, metavar="X", help=f"{text}  [{parser.range}]")


def name_of_file(text: str) -> str:
    """Returns the name of a file, a folder or a model as it is.

    Args:
        text: the name.

    Raises:
        typer.BadParameter: it is empty.

    Example:
        >>> name_of_file("a.txt")
        'a.txt'
    """
    if not text:
        raise typer.BadParameter("the name must not be empty")
    return text


def plain_text(text: str) -> str:
    """Returns a text as it is.

    Args:
        text: what was given.

    Raises:
        typer.BadParameter: it is not UTF-8, which Python keeps as lone surrogates.

    Example:
        >>> plain_text("")
        ''
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("the text is not UTF-8") from None
    return text


def limit_threads(threads: int | None) -> int | None:
    """Returns how many threads to start: at most four for a core, and a line where that is less.

    More threads than that only wait for each other, and each takes memory.

    Args:
        threads: as asked for; None if it was not.

    Example:
        >>> limit_threads(1)
        1
    """
    from lmcore.ops._threads import most_threads

    most = most_threads()
    if threads is None or threads <= most:
        return threads
    say(f"lmcore: --threads {threads} is more than 4 for each core: {most} are started")
    return most


Scheme = Annotated[
    str,
    typer.Option(
        metavar="|".join(SCHEMES),
        parser=plain_text,
        help="How labels are read and entities compared: gner (normalised text and type, a set "
        "per sentence), universalner (the same per type), strict and conll (positions and "
        "type), iob2 (positions; only B- starts an entity).",
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Compare with what this tokenizer (folder or name) makes of the words."
    ),
]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="List rows that cannot be used and go on.")
]
Threads = Annotated[
    int | None,
    whole(
        1,
        MOST,
        text="Number of threads; all cores by default, and at most four for a core are started.",
    ),
]

StepRows = Annotated[int, whole(1, MOST, text="Of a micro-batch on a device.")]
SourceTokens = Annotated[
    int, whole(1, MOST, text="That the encoder reads; a decoder alone has none.")
]
TargetTokens = Annotated[int, whole(1, MOST, text="Of the decoder.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="float32|bfloat16|master",
        parser=plain_text,
        help="Of training: bfloat16 computes in it and keeps weights in float32, master keeps "
        "them in both.",
    ),
]
Recompute = Annotated[
    bool, typer.Option("--recompute", help="Compute layers again in the backward pass.")
]
SwigluRule = Annotated[
    bool | None,
    typer.Option(
        "--swiglu-rule/--no-swiglu-rule",
        help="Whether inner layers have two thirds of ffn_hidden_size (OpenBA V1) or all of it "
        "(V2), where neither the configuration nor weights beside it tell.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Device = Annotated[
    str | None, typer.Option(metavar="cpu|cuda|auto", help="Where to compute; auto by default.")
]
Out = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        parser=name_of_file,
        help="Where the model, its log and its state go.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Another setting of the recipe, any number of times; `recipe` lists them.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume/--no-resume", help="Go on where a killed run was, or anew."),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="auto|float32|bfloat16|float16",
        parser=plain_text,
        help="Of the weights; auto is that of the files.",
    ),
]
TextsForm = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="auto|text|jsonl|parquet",
        parser=plain_text,
        help="Form of the files; auto looks at their names.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
