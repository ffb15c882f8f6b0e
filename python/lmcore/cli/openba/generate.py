"""The command `lmcore openba generate`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    Device,
    Dtype,
    Quiet,
    SkipBadRows,
    Threads,
    decimal,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import ask, say, show, show_part

if TYPE_CHECKING:
    from lmcore.openba import Generation, GenerationSummary, TextGenerator


def generate_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            parser=name_of_file,
            help="Folder of a model and its tokenizer, or of a run of `train`.",
            show_default=False,
        ),
    ],
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            parser=name_of_file,
            help="Prompts: lines of text, or JSONL (prompt or text). .gz is compressed, `-` is "
            "standard input. Without FILE each line that is typed is answered.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="OUT.jsonl",
            parser=name_of_file,
            help="FILE's rows with generation; standard output by default.",
            show_default=False,
        ),
    ] = "-",
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|text|jsonl",
            parser=plain_text,
            help="Form of FILE; auto looks at its name.",
        ),
    ] = "auto",
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Read prompts as they are, not as <S> ... <extra_id_0>."),
    ] = False,
    batch_size: Annotated[int, whole(1, 65536, text="Prompts that are answered together.")] = 8,
    num_beams: Annotated[int, whole(1, 1024, text="Hypotheses of each; 1 is greedy.")] = 1,
    temperature: Annotated[
        float, decimal(0, 1000, text="Draw tokens, from scores divided by this; 0 draws none.")
    ] = 0.0,
    top_k: Annotated[int, whole(0, MOST, text="Draw among the K most likely; 0 is all.")] = 0,
    top_p: Annotated[
        float, decimal(0.001, 1, text="Draw among the most likely that are so likely together.")
    ] = 1.0,
    seed: Annotated[int, whole(0, 2**64 - 1, text="Of the draws.")] = 0,
    max_source_tokens: Annotated[
        int | None,
        whole(8, MOST, text="Of a prompt, which is cut behind; by default what MODEL saw."),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        whole(1, MOST, text="Of a generated text; by default what MODEL saw, at most 256."),
    ] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    threads: Threads = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where OUT.jsonl ended, or anew.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Write what a model makes of prompts, of a file or as typed.

    What was cut, of a prompt or at the end of a text, is said for each row. A killed run goes on
    where it was.
    """
    settings = {
        "plain": plain, "batch_size": batch_size, "num_beams": num_beams, "top_k": top_k,
        "temperature": temperature, "top_p": top_p, "seed": seed,
        "max_source_tokens": max_source_tokens, "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    options = {"form": data_format, "skip_bad_rows": skip_bad_rows, "resume": resume}
    place = {"device": "auto" if device is None else device, "dtype": dtype}
    _generate(model, file, out, settings, place, limit_threads(threads), options, quiet=quiet)


def _generate(
    name: str,
    file: str | None,
    out: str,
    settings: dict[str, Any],
    place: dict[str, str],
    threads: int | None,
    options: dict[str, Any],
    *,
    quiet: bool,
) -> None:
    with starting():
        from lmcore._files import find_output
        from lmcore.openba.generation import Generation, load_generator
        from lmcore.openba.prompts import find_prompt_form
        from lmcore.training.processes import use_threads

    generation: Generation = Generation(**settings)
    find_prompt_form(file or "-", options["form"])
    if file is None and out != "-":
        raise ValueError("--out needs a FILE of prompts")
    if out != "-":
        find_output(out, [] if file in ("-", None) else [file])
    with use_threads(threads), _warnings_as_lines():
        generate = load_generator(name, generation, **place)
        if file is None:
            _answer_lines(generate)
        else:
            _say_summary(_answer_file(generate, file, out, quiet, options))


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """What the library warns of, such as a text that is longer than the model saw, as one line."""

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        say(f"lmcore: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        yield


def _answer_lines(generate: TextGenerator) -> None:
    """Answers each line of standard input, part by part."""
    from lmcore.openba.prompts import read_prompt

    number = 0
    while (line := ask()) is not None:
        number += 1
        try:
            prompt = read_prompt(line)
        except ValueError as error:
            problem = f"standard input:{number}: {error}"
            if not sys.stdin.isatty():
                raise ValueError(problem) from None
            say(f"lmcore: {problem}")  # who types may type again
            continue
        if prompt:
            answer = generate.stream(prompt, show_part, row=number)
            show("")
            for name in answer.truncated:
                say({"source": "the prompt was cut", "output": "the text was cut"}[name])


def _answer_file(
    generate: TextGenerator, file: str, out: str, quiet: bool, options: dict[str, Any]
) -> GenerationSummary:
    from tqdm import tqdm

    from lmcore.openba.prompts import generate_file

    with tqdm(unit=" prompts", disable=True if quiet else None, leave=False) as bar:
        return generate_file(
            generate.model, generate.tokenizer, file, out,
            generation=generate.generation, progress=bar.update, **options,
        )  # fmt: skip


def _say_summary(summary: GenerationSummary) -> None:
    for row in summary.listed_bad_rows:
        say(f"skipped {row}")
    resumed = f", {summary.resumed_rows} of them before" if summary.resumed_rows else ""
    say(f"{summary.rows} prompts answered{resumed}, {summary.bad_rows} skipped")
    if summary.truncated_sources:
        say(f"{summary.truncated_sources} prompts were cut: the model read a beginning")
    if summary.truncated_outputs:
        say(f"{summary.truncated_outputs} generated texts were cut before their end")
