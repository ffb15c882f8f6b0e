"""The commands `lmcore ner score` and `lmcore ner align`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    Scheme,
    SkipBadRows,
    Threads,
    Tokenizer,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import say, show, show_json
from lmcore.ops.entities import SCHEMES

if TYPE_CHECKING:
    from lmcore.ner import BackTokenizer, Scores


def score_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            parser=name_of_file,
            help="JSONL: one object per row.",
            show_default=False,
        ),
    ],
    scheme: Scheme = SCHEMES[0],
    html: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Write a page with the worst sentences side by side.",
        ),
    ] = None,
    worst: Annotated[int, whole(0, MOST, text="Worst sentences per data set on the page.")] = 20,
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
    with starting():
        from lmcore._files import find_output
        from lmcore.ner import score_files

    if html is not None:
        find_output(html, files)
    options = _make_options(scheme, skip_bad_rows, threads, tokenizer)
    with _progress(files) as progress:
        scores = score_files(files, worst=worst if html else 0, progress=progress, **options)
    _report(scores, html, files, as_json=as_json)


def align_command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IN.jsonl OUT.jsonl]",
            parser=name_of_file,
            help="Rows with words or text, label_list and prediction; one aligned row for each. "
            "A name that ends with .gz is compressed, `-` is standard input or output.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(parser=plain_text, help="One sentence instead of files.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(parser=plain_text, help="Its entity types, separated by commas.")
    ] = None,
    prediction: Annotated[
        str | None, typer.Option(parser=plain_text, help="What the model generated for it.")
    ] = None,
    scheme: Scheme = SCHEMES[0],
    tokenizer: Tokenizer = None,
    skip_bad_rows: SkipBadRows = False,
    threads: Threads = None,
) -> None:
    """Turn generated text into labels and entities with offsets.

    Offsets count characters of the text, or of the words joined with spaces.
    """
    sentence = (text, labels, prediction)
    if files is not None and len(files) == 2 and sentence == (None, None, None):
        _align_files(files[0], files[1], scheme, skip_bad_rows, threads, tokenizer)
    elif files or text is None or labels is None or prediction is None:
        raise ValueError("give IN.jsonl and OUT.jsonl, or --text, --labels and --prediction")
    elif tokenizer is not None or skip_bad_rows or threads is not None:
        raise ValueError("--tokenizer, --skip-bad-rows and --threads go with files")
    else:
        _align_sentence(text, labels, prediction, scheme)


def _report(scores: Scores, html: str | None, files: list[str], *, as_json: bool) -> None:
    """Writes the page and prints the scores; ValueError where there are none."""
    from lmcore._files import write_text
    from lmcore.ner.report import format_table, render_html

    if not scores.datasets:
        first = scores.listed_bad_rows[0]
        raise ValueError(f"none of {scores.bad_rows} rows can be used; the first: {first}")
    if html is not None:
        write_text(html, render_html(scores), files)
    if as_json:
        show_json(scores.to_dict())
    else:
        show(format_table(scores))


def _align_sentence(text: str, labels: str, prediction: str, scheme: str) -> None:
    with starting():
        from lmcore.ner import align_row

    label_list = [label.strip() for label in labels.split(",") if label.strip()]
    row = {"text": text, "label_list": label_list, "prediction": prediction}
    show_json(align_row(row, scheme).to_dict())


def _align_files(
    source: str,
    target: str,
    scheme: str,
    skip_bad_rows: bool,
    threads: int | None,
    tokenizer: str | None,
) -> None:
    with starting():
        from lmcore._files import find_output
        from lmcore._pipes import open_names
        from lmcore.ner import align_file

    if target != "-":
        find_output(target, [source])
    options = _make_options(scheme, skip_bad_rows, threads, tokenizer)
    with _progress([source]) as progress, open_names(source, target) as names:
        summary = align_file(
            names.source,
            names.target,
            progress=lambda done: progress(names.count_bytes(done)),
            **options,
        )
    for bad_row in summary.listed_bad_rows:
        say(f"skipped {names.show(bad_row)}")
    say(f"{summary.rows} rows aligned, {summary.bad_rows} skipped")


def _make_options(
    scheme: str, skip_bad_rows: bool, threads: int | None, tokenizer: str | None
) -> dict[str, Any]:
    """What scoring and aligning take alike."""
    return {
        "scheme": scheme,
        "threads": limit_threads(threads),
        "skip_bad_rows": skip_bad_rows,
        "back_tokenize": _load_tokenizer(tokenizer),
    }


def _load_tokenizer(name: str | None) -> BackTokenizer | None:
    if name is None:
        return None
    if name.startswith((".", "~", os.sep)) and not Path(name).is_dir():
        raise ValueError(f"--tokenizer {name}: no such folder")
    with starting():
        import transformers  # noqa: F401 - the slowest import of this command

        from lmcore.ner import BackTokenizer

    try:
        return BackTokenizer.from_pretrained(name)
    except Exception as error:  # a folder that is something else makes the loader fail in any way
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ValueError(f"--tokenizer {name}: {reason[0]}") from None


@contextmanager
def _progress(paths: list[str]) -> Iterator[Callable[[int], None]]:
    """A bar over the bytes of all files, where somebody is looking."""
    from tqdm import tqdm

    sizes = [Path(path).stat().st_size if Path(path).is_file() else 0 for path in paths]
    with tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=None, leave=False) as bar:
        yield lambda done: bar.update(done - bar.n)
