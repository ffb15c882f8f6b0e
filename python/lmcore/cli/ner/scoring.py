"""The commands `lmcore ner score` and `lmcore ner align`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import chain
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
from lmcore.cli.terminal import say, show, show_bytes, show_json
from lmcore.ops.entities import SCHEMES

if TYPE_CHECKING:
    from lmcore.ner import BackTokenizer, Scores
    from lmcore.ner.breakdown import Breakdown
    from lmcore.ner.labelled import Reading


Form = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="auto|gner|json|conll",
        parser=plain_text,
        help="Form of the files: generated text `word(label) ...`, entities as JSON, or columns "
        "with gold and predicted labels; auto looks at the first row.",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        parser=name_of_file,
        help="Predictions of another model for the same rows: say how much the models differ.",
    ),
]
Resamples = Annotated[int, whole(1, 10**6, text="Samples of the interval of --against.")]
BootstrapSeed = Annotated[
    int, whole(0, 2**64 - 1, "--seed", text="Of the rows that these samples take.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def score_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            parser=name_of_file,
            help="JSONL: one object per row; or another form, see --format. A name that ends with "
            ".gz is decompressed, `-` is standard input.",
            show_default=False,
        ),
    ],
    scheme: Scheme = SCHEMES[0],
    form: Form = "auto",
    by_type: Annotated[
        bool,
        typer.Option("--by-type", help="Score each entity type, and count matches in part, too."),
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Take data sets of one name in several files for one.")
    ] = False,
    against: Against = None,
    resamples: Resamples = 1000,
    seed: BootstrapSeed = 0,
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
    as_json: AsJson = False,
    skip_bad_rows: SkipBadRows = False,
    threads: Threads = None,
) -> None:
    """Score files of predictions: precision, recall and F1 per data set, and how texts matched.

    A row holds types, prediction, and words and labels (at the top or in "instance").
    "dataset" names its data set; without it, the file's name does.
    """
    if against is not None:
        _compare(files, against, scheme, form, resamples, seed, as_json, html, tokenizer, threads)
        return
    options = {**make_options(scheme, skip_bad_rows, threads, tokenizer), "form": form}
    scores = _score(files, html, worst, merge, options)
    details = _break_down(files, scores, merge, options) if by_type else {}
    _warn(scores, files)
    _report(scores, details, html, files, as_json=as_json)


def align_command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IN.jsonl OUT.jsonl]",
            parser=name_of_file,
            help="Rows with words or text, types and prediction; one aligned row for each. "
            "A name that ends with .gz is compressed, `-` is standard input or output.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(parser=plain_text, help="One sentence instead of files.")
    ] = None,
    types: Annotated[
        str | None, typer.Option(parser=plain_text, help="What its entities may be, by commas.")
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
    sentence = (text, types, prediction)
    if files is not None and len(files) == 2 and sentence == (None, None, None):
        _align_files(files[0], files[1], scheme, skip_bad_rows, threads, tokenizer)
    elif files or text is None or types is None or prediction is None:
        raise ValueError("give IN.jsonl and OUT.jsonl, or --text, --types and --prediction")
    elif tokenizer is not None or skip_bad_rows or threads is not None:
        raise ValueError("--tokenizer, --skip-bad-rows and --threads go with files")
    else:
        _align_sentence(text, types, prediction, scheme)


def _score(
    files: list[str], html: str | None, worst: int, merge: bool, options: Mapping[str, Any]
) -> Scores:
    with starting():
        from lmcore._files import find_output
        from lmcore.ner import score_files

    if html is not None:
        find_output(html, files)
    shown = worst if html else 0
    with show_bytes(files) as progress:
        return score_files(files, worst=shown, progress=progress, merge=merge, **options)


def _break_down(
    files: list[str], scores: Scores, merge: bool, options: Mapping[str, Any]
) -> dict[str, Breakdown]:
    """The details of each data set under the name that it has in the scores."""
    with starting():
        from lmcore.ner.breakdown import break_down
        from lmcore.ner.labelled import read_labelled

    if streams := [name for name in files if not Path(name).is_file()]:
        raise ValueError(f"--by-type reads files twice, and {streams[0]} can be read once")
    parts = [read_labelled(name, make_reading(options)) for name in files]
    if merge:
        return break_down(chain.from_iterable(parts), options["scheme"])
    found = [break_down(part, options["scheme"]) for part in parts]
    details = (part for group in found for part in group.values())
    return dict(zip(scores.datasets, details, strict=True))


def _compare(
    files: list[str],
    against: str,
    scheme: str,
    form: str,
    resamples: int,
    seed: int,
    as_json: bool,
    html: str | None,
    tokenizer: str | None,
    threads: int | None,
) -> None:
    with starting():
        from lmcore.ner.comparison import compare_files
        from lmcore.ner.report import format_comparison

    if len(files) != 1 or html is not None:
        raise ValueError("--against compares one file with another, and writes no page")
    options = {**make_options(scheme, False, threads, tokenizer), "form": form}
    comparison = compare_files(
        files[0],
        against,
        scheme=scheme,
        resamples=resamples,
        seed=seed,
        reading=make_reading(options),
    )
    if as_json:
        show_json(comparison.to_dict())
    else:
        show(format_comparison(comparison))


def make_reading(options: Mapping[str, Any]) -> Reading:
    """Returns how rows are read one by one, for the options that scoring takes.

    Args:
        options: as `make_options` gives them, and `form`.

    Example:
        >>> options = {"form": "gner", "skip_bad_rows": False, "threads": 1, "back_tokenize": None}
        >>> make_reading(options).form
        'gner'
    """
    from lmcore.ner.labelled import Reading

    return Reading(
        form=options["form"],
        skip_bad_rows=options["skip_bad_rows"],
        threads=options["threads"],
        back_tokenize=options["back_tokenize"],
    )


def _warn(scores: Scores, files: list[str]) -> None:
    """Says in which form files were read, and what of the predictions could not be."""
    for name, form in scores.forms.items():
        if form != "gner":
            say(f"{name}: read in the form {form}")
    empty = [d for d in scores.datasets.values() if d.first_empty is not None]
    if empty:
        count, rows = (sum(numbers) for numbers in zip(*((d.empty_predictions, d.rows)
                                                         for d in scores.datasets.values()),
                                                       strict=True))  # fmt: skip
        say(
            f"warning: {count} of {rows} predictions hold no `word(label)`, the first at "
            f"{empty[0].first_empty}: each of their words counts as O"
        )
    if scores.left_out:
        say(
            f"warning: {scores.left_out} predicted entities are not in their sentence between "
            "whole words, or overlap another: they count as wrong"
        )


def _report(
    scores: Scores,
    details: dict[str, Breakdown],
    html: str | None,
    files: list[str],
    *,
    as_json: bool,
) -> None:
    """Writes the page and prints the scores; ValueError where there are none."""
    from lmcore._files import write_text
    from lmcore.ner.report import format_table, render_html

    if not scores.datasets:
        first = scores.listed_bad_rows[0]
        raise ValueError(f"none of {scores.bad_rows} rows can be used; the first: {first}")
    if html is not None:
        write_text(html, render_html(scores, details), files)
    if as_json:
        result = scores.to_dict()
        for name, part in details.items():
            result["datasets"][name] |= part.to_dict()
        show_json(result)
    else:
        show(format_table(scores, details))


def _align_sentence(text: str, types: str, prediction: str, scheme: str) -> None:
    with starting():
        from lmcore.ner import align_row

    names = [name.strip() for name in types.split(",") if name.strip()]
    row = {"text": text, "types": names, "prediction": prediction}
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
    options = make_options(scheme, skip_bad_rows, threads, tokenizer)
    with show_bytes([source]) as progress, open_names(source, target) as names:
        summary = align_file(
            names.source,
            names.target,
            progress=lambda done: progress(names.count_bytes(done)),
            **options,
        )
    for bad_row in summary.listed_bad_rows:
        say(f"skipped {names.show(bad_row)}")
    say(f"{summary.rows} rows aligned, {summary.bad_rows} skipped")


def make_options(
    scheme: str, skip_bad_rows: bool, threads: int | None, tokenizer: str | None
) -> dict[str, Any]:
    """Returns what scoring and aligning take alike.

    Args:
        scheme: as in `lmcore.cli.options`, and so on.
        skip_bad_rows: likewise.
        threads: likewise.
        tokenizer: a folder or a name.

    Example:
        >>> make_options("gner", False, 1, None)["threads"]
        1
    """
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
