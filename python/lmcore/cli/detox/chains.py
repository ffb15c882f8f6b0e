"""The command `lmcore detox chains`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import SkipBadRows, name_of_file, plain_text
from lmcore.cli.terminal import say, show_json

if TYPE_CHECKING:
    from lmcore.detox import ChainSummary


def chains_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            parser=name_of_file,
            help="JSONL: prompt, generation and cont_toxicity, of a toxic prompt also mask_prompt "
            "and recover_prompt; or, with --check, rows of chains. .gz is decompressed, `-` is "
            "standard input.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="OUT",
            parser=name_of_file,
            help="Rows of training; `-` for standard output. None with --check.",
        ),
    ] = None,
    grammar: Annotated[
        str,
        typer.Option(
            metavar="paper|student",
            parser=plain_text,
            help="With `#` between the steps, or with an instruction and `###`.",
        ),
    ] = "paper",
    check: Annotated[
        bool,
        typer.Option("--check", help="Read FILE's chains, and print what is wrong with them."),
    ] = False,
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where OUT ended, or anew.")
    ] = True,
) -> None:
    """Make chains of prompts and their scored continuations: rows that `train` reads.

    The cleanest continuation is the chain's own, and toxic ones stand beside it. Prompts without
    a clean one are left out and counted. A killed run goes on where it was.
    """
    options = {"grammar": grammar, "skip_bad_rows": skip_bad_rows}
    if check:
        _check(source, target, options)
    else:
        _make(source, target, {**options, "resume": resume})


def _check(source: str, target: str | None, options: dict[str, Any]) -> None:
    with starting():
        from lmcore.detox import check_chains

    if target is not None:
        raise ValueError("OUT must not be given with --check, which writes no rows")
    found = check_chains(source, **options)
    _list_bad_rows(found)
    show_json({k: v for k, v in asdict(found).items() if k in _CHECKED}, indent=2)


def _make(source: str, target: str | None, options: dict[str, Any]) -> None:
    with starting():
        from lmcore.detox import make_chains

    if target is None:
        raise ValueError("OUT must be given: where the rows go, or --check")
    found = make_chains(source, target, **options)
    _list_bad_rows(found)
    _say_summary(found)


_CHECKED = ("rows", "toxic", "non_toxic", "groups", "problems", "bad_rows")


def _list_bad_rows(summary: ChainSummary) -> None:
    for row in summary.listed_bad_rows:
        say(f"skipped {row}")


def _say_summary(summary: ChainSummary) -> None:
    resumed = f", {summary.resumed_rows} of them before" if summary.resumed_rows else ""
    say(
        f"{summary.rows} rows read{resumed}, {summary.bad_rows} skipped: {summary.toxic} toxic and "
        f"{summary.non_toxic} non-toxic chains, {summary.groups} with toxic continuations"
    )
    reasons = {"toxic": "all continuations are toxic", "no_generation": "no continuation"}
    for reason, count in summary.left_out.items():
        say(f"{count} rows left out: {reasons[reason]}")
    for problem, count in summary.problems.items():
        say(f"{count} chains would be read otherwise: {problem}")
