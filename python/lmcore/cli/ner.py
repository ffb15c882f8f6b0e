"""The commands `lmcore ner ...`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmcore.cli.failures import failures_as_lines
from lmcore.cli.options import Scheme, SkipBadRows, Threads, Tokenizer
from lmcore.ops.entities import SCHEMES

if TYPE_CHECKING:
    from lmcore.ner import BackTokenizer

app = typer.Typer(no_args_is_help=True, help="Named entities from generated text (GNER).")


@app.command("score")
def score_command(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="JSONL: one object per row.", show_default=False),
    ],
    scheme: Scheme = SCHEMES[0],
    html: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write a page with the worst sentences side by side."),
    ] = None,
    worst: Annotated[
        int, typer.Option(min=0, metavar="N", help="Worst sentences per data set on the page.")
    ] = 20,
    tokenizer: Tokenizer = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
    skip_bad_rows: SkipBadRows = False,
    threads: Threads = None,
) -> None:
    """Score files of predictions: precision, recall and F1 per data set, and how texts matched.

    A row holds label_list, prediction, and words and labels (at the top or in "instance").
    "dataset" names its data set; without it, the file's name does.
    """
    from lmcore._files import write_text
    from lmcore.ner import score_files
    from lmcore.ner.report import format_table, render_html

    with failures_as_lines():
        back_tokenize = _load_tokenizer(tokenizer)
        with _progress(files) as progress:
            scores = score_files(
                files,
                scheme=scheme,
                threads=threads,
                worst=worst if html else 0,
                skip_bad_rows=skip_bad_rows,
                back_tokenize=back_tokenize,
                progress=progress,
            )
        if not scores.datasets:
            first = scores.listed_bad_rows[0]
            raise ValueError(f"none of {scores.bad_rows} rows can be used; the first: {first}")
        if html:
            write_text(html, render_html(scores))
    typer.echo(
        json.dumps(scores.to_dict(), ensure_ascii=False) if as_json else format_table(scores)
    )


@app.command("align")
def align_command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IN.jsonl OUT.jsonl]",
            help="Rows with words or text, label_list and prediction; one aligned row for each.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="One sentence instead of files.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Its entity types, separated by commas.")
    ] = None,
    prediction: Annotated[str | None, typer.Option(help="What the model generated for it.")] = None,
    scheme: Scheme = SCHEMES[0],
    tokenizer: Tokenizer = None,
    skip_bad_rows: SkipBadRows = False,
    threads: Threads = None,
) -> None:
    """Turn generated text into labels and entities with offsets.

    Offsets count characters of the text, or of the words joined with spaces.
    """
    from lmcore.ner import align_file, align_row

    with failures_as_lines():
        if not files:
            if text is None or labels is None or prediction is None:
                raise ValueError(
                    "give IN.jsonl and OUT.jsonl, or --text, --labels and --prediction"
                )
            if tokenizer is not None or skip_bad_rows or threads is not None:
                raise ValueError("--tokenizer, --skip-bad-rows and --threads go with files")
            label_list = [label.strip() for label in labels.split(",") if label.strip()]
            row = {"text": text, "label_list": label_list, "prediction": prediction}
            typer.echo(json.dumps(align_row(row, scheme), ensure_ascii=False))
            return
        if len(files) != 2 or not text is labels is prediction is None:
            raise ValueError("give IN.jsonl and OUT.jsonl, or --text, --labels and --prediction")
        back_tokenize = _load_tokenizer(tokenizer)
        with _progress(files[:1]) as progress:
            rows, skipped, listed = align_file(
                files[0],
                files[1],
                scheme,
                threads=threads,
                skip_bad_rows=skip_bad_rows,
                back_tokenize=back_tokenize,
                progress=progress,
            )
    for bad_row in listed:
        typer.echo(f"skipped {bad_row}", err=True)
    typer.echo(f"{rows} rows aligned, {skipped} skipped", err=True)


def _load_tokenizer(name: str | None) -> BackTokenizer | None:
    if name is None:
        return None
    if name.startswith((".", "~", os.sep)) and not Path(name).is_dir():
        raise ValueError(f"--tokenizer {name}: no such folder")
    from lmcore.ner import BackTokenizer

    try:
        return BackTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--tokenizer {name}: {reason}") from None


@contextmanager
def _progress(paths: list[str]) -> Iterator[Callable[[int], None]]:
    """A bar over the bytes of all files, where somebody is looking."""
    from tqdm import tqdm

    sizes = [Path(path).stat().st_size if Path(path).is_file() else 0 for path in paths]
    with tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=None, leave=False) as bar:
        finished, last = 0, 0

        def update(done: int) -> None:
            nonlocal finished, last
            if done < last:  # the next file began
                finished += last
            last = done
            bar.update(finished + done - bar.n)

        yield update
