"""The command `lmcore openba chain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._text import escape
from lmcore.cli.failures import starting
from lmcore.cli.options import (
    Device,
    Quiet,
    Threads,
    limit_threads,
    name_of_file,
    plain_text,
)
from lmcore.cli.terminal import show

if TYPE_CHECKING:
    from lmcore.openba.chain import ChainInputs, ChainResult

# So many answers are shown.
_SHOWN = 5


def chain_command(
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            parser=name_of_file,
            help="Folder of what all steps make.",
            show_default=False,
        ),
    ],
    texts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Texts, any number of files, as `clean` takes them; without them and the next "
            "three, a generated world.",
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.jsonl",
            parser=name_of_file,
            help="Rows of tasks, any number of files, as `instructions` takes them.",
        ),
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option(metavar="FILE.json", parser=name_of_file, help="Templates of the tasks."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR",
            parser=name_of_file,
            help="A SentencePiece file, or the folder of a tokenizer.",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            parser=plain_text,
            help="What the model is asked at the end, next to instructions that were held out.",
        ),
    ] = None,
    device: Device = None,
    threads: Threads = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another setting of a step, any number of times: of ul2, length_adaptation and "
            "bilingual_flan as `recipe tiny` lists them, of cleaning and instructions.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where OUT ended, or anew.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Do all of it with a small model: from texts to answers.

    Texts are cleaned and packed; three stages are trained, by UL2, at twice the length and on
    instructions; the last model is asked instructions that were held out. Each step is one that has
    a command of its own; a line is printed when it is done. A killed chain goes on where it was.
    `--set` names the step: `ul2.loop.steps=1000`, `cleaning.minimum_words=10`.
    """
    files = {"texts": texts, "tasks": tasks, "templates": templates, "tokenizer": tokenizer}
    place = {"device": device, "threads": limit_threads(threads)}
    options = {"prompt": prompt, "resume": resume, "progress": not quiet}
    _chain(out, files, place, settings or [], options)


def _chain(
    out: str,
    files: dict[str, Any],
    place: dict[str, Any],
    settings: list[str],
    options: dict[str, Any],
) -> None:
    with starting():
        from lmcore.openba.chain import STAGES, ChainConfig, run_chain
        from lmcore.training.config import change, override

    given = {name: value for name, value in place.items() if value is not None}
    config = change(
        override(ChainConfig(), settings),
        {f"{stage}.device.{name}": value for stage in STAGES for name, value in given.items()},
    )
    inputs = _find_inputs(files)
    result = run_chain(config, out, inputs, tell=lambda line: show(escape(line)), **options)
    _show_answers(result, options["prompt"])


def _show_answers(result: ChainResult, prompt: str | None) -> None:
    """An answer of each of the first tasks and that to the prompt; how many of all are right."""
    shown = {answer.task: answer for answer in reversed(result.answers)}
    for task in [*dict.fromkeys(answer.task for answer in result.answers)][:_SHOWN]:
        answer = shown[task]
        verdict = "right" if answer.is_right else f"wrong; right is {escape(answer.target)}"
        show(f"\nasked     {escape(answer.source)}\nanswered  {escape(answer.answer)} ({verdict})")
    if prompt is not None and result.reply is not None:
        show(f"\nasked     {escape(prompt)}\nanswered  {escape(result.reply)}")
    asked = len(result.answers)
    share = result.right / asked
    show(f"\n{result.right} of {asked} held-out instructions answered right: {share:.0%}")


def _find_inputs(files: dict[str, Any]) -> ChainInputs | None:
    """The files that were given: all kinds of them, or none."""
    from lmcore.openba.chain import ChainInputs

    missing = [name for name, value in files.items() if not value]
    if len(missing) == len(files):
        return None
    if missing:
        raise ValueError(f"--{missing[0]} must be given where other files are")
    return ChainInputs(
        texts=tuple(files["texts"]),
        rows=tuple(files["tasks"]),
        templates=files["templates"],
        tokenizer=files["tokenizer"],
    )
