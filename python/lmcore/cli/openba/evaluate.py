"""The command `lmcore openba evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    AsJson,
    Device,
    Dtype,
    Quiet,
    SkipBadRows,
    Threads,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import say, show, show_json

if TYPE_CHECKING:
    from lmcore.openba import Evaluation


def evaluate_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            parser=name_of_file,
            help="Folder of a model and its tokenizer, or of a run of `train`.",
            show_default=False,
        ),
    ],
    task: Annotated[
        str,
        typer.Option(
            metavar="mmlu|cmmlu|ceval|arc|piqa|belebele|bbh",
            parser=plain_text,
            help="The suite whose files DIR holds.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR|FILE",
            parser=name_of_file,
            help="Its questions, in the forms that they are published in.",
            show_default=False,
        ),
    ],
    shots: Annotated[
        int, whole(0, 1000, text="Demonstrations that are shown before each question.")
    ] = 0,
    by: Annotated[
        str,
        typer.Option(
            metavar="letter|loss",
            parser=plain_text,
            help="Choose the likeliest letter, or the option whose tokens have the least loss.",
        ),
    ] = "letter",
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="mmlu|mmlu-v2|cmmlu|ceval|arc|piqa",
            parser=plain_text,
            help="Whose prompts ask; by default the task's, and mmlu's where it has none.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="dev|train|val|test",
            parser=plain_text,
            help="The part that counts; by default val of ceval and piqa, and else test.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS.jsonl",
            parser=name_of_file,
            help="Write a row for each question, and go on there after a kill.",
        ),
    ] = None,
    batch_size: Annotated[int, whole(1, 65536, text="Questions answered together.")] = 16,
    max_source_tokens: Annotated[
        int | None,
        whole(4, MOST, text="Of a prompt; by default 1024, or what MODEL saw if less."),
    ] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    threads: Threads = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where ROWS.jsonl ended, or anew.")
    ] = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure how often a model chooses the right option.

    Accuracies are of each subject, of the suite's categories, and of all questions together. With
    more demonstrations than MODEL can read, a question is shown fewer, and that is counted.
    """
    settings = {"by": by, "prompts": prompts, "max_source_tokens": max_source_tokens}
    asked = {"shots": shots, "split": split, "skip_bad_rows": skip_bad_rows}
    place = {"device": "auto" if device is None else device, "dtype": dtype}
    output = {"out": out, "resume": resume, "quiet": quiet}
    settings |= {"batch_size": batch_size}
    found = _evaluate(model, (data, task), asked, settings, place, limit_threads(threads), output)
    _say_counts(found)
    _show_scores(found, as_json=as_json)


def _evaluate(
    name: str,
    suite: tuple[str, str],
    asked: dict[str, Any],
    settings: dict[str, Any],
    place: dict[str, str],
    threads: int | None,
    output: dict[str, Any],
) -> Evaluation:
    with starting():
        from tqdm import tqdm

        from lmcore._files import find_file
        from lmcore.openba.evaluation import EvaluationConfig, evaluate
        from lmcore.openba.models import load_pair
        from lmcore.openba.questions import read_questions
        from lmcore.training.processes import use_threads

    config = EvaluationConfig(**settings)
    questions = read_questions(*suite, **asked)
    if output["out"] is not None:
        find_file(output["out"], questions.files)
    count = len(questions.questions)
    hidden = True if output["quiet"] else None
    with use_threads(threads):
        model, tokenizer = load_pair(name, **place)
        with tqdm(total=count, unit=" questions", disable=hidden, leave=False) as bar:
            return evaluate(
                model, tokenizer, questions, config=config, out=output["out"],
                resume=output["resume"], progress=bar.update,
            )  # fmt: skip


def _say_counts(found: Evaluation) -> None:
    for row in found.listed_bad_rows:
        say(f"skipped {row}")
    for text in found.left_out:
        say(f"left out {text}")
    resumed = f", {found.resumed} of them before" if found.resumed else ""
    say(f"{found.total.questions} questions answered{resumed}, {found.bad_rows} skipped")
    if found.fewer_shots:
        say(f"{found.fewer_shots} questions were shown fewer than {found.shots} demonstrations")
    if found.cut:
        say(f"{found.cut} questions were cut: the model read a beginning")
    if found.held_out:
        say(f"{found.held_out} questions were shown to the others, and do not count")
    secret = found.total.questions - found.total.answered
    if secret:
        say(f"{secret} questions have no published answer: they are predicted, and do not count")


def _show_scores(found: Evaluation, *, as_json: bool) -> None:
    if as_json:
        show_json(found.to_dict(), indent=2)
    else:
        show("\n".join(found.to_table()))
