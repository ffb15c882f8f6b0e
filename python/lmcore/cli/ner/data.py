"""The command `lmcore ner data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, SkipBadRows, Whole, name_of_file, plain_text, whole
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmcore.ner import DataSummary

_LISTED_TYPES = 20


class ContextParser:
    """A parser of a context: a whole number, or `all`.

    Example:
        >>> ContextParser()("all"), ContextParser()("2")
        ('all', 2)
    """

    __name__ = "context"

    def __call__(self, text: str | int) -> str | int:
        """Returns the context.

        Raises:
            typer.BadParameter: the text is none.
        """
        try:
            return "all" if text == "all" else Whole(0, MOST)(text)
        except typer.BadParameter as error:
            raise typer.BadParameter(f"expected all, or {error.message[9:]}") from None


def data_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="IN... OUT.jsonl",
            parser=name_of_file,
            help="Columns, JSONL, a folder with label.txt, or one of the library datasets; the "
            "last name is the output. .gz is compressed, `-` is standard input or output.",
            show_default=False,
        ),
    ],
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|columns|rows|datasets",
            parser=plain_text,
            help="Form of the inputs; auto looks at names and first characters.",
        ),
    ] = "auto",
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", parser=name_of_file, help="Which part of a folder; train by default."
        ),
    ] = None,
    types: Annotated[
        str | None,
        typer.Option(
            parser=plain_text,
            help="What entities may be, separated by commas, besides what the inputs name.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(parser=plain_text, help="Name of the data set, for inputs that name none."),
    ] = None,
    word_column: Annotated[
        int | None,
        whole(1, MOST, "--word-column", text="Column of the words; looked for by default."),
    ] = None,
    label_column: Annotated[
        int | None,
        whole(
            1,
            MOST,
            "--label-column",
            text="Column of the labels; the last or the first by default.",
        ),
    ] = None,
    context: Annotated[
        str,
        typer.Option(
            metavar="N|all",
            parser=ContextParser(),
            help=f"Words outside that a target keeps on each side of an entity.  [0 to {MOST}]",
        ),
    ] = "all",
    boundaries: Annotated[
        str, typer.Option(metavar="bio|bioes|io", parser=plain_text, help="Labels of the target.")
    ] = "bio",
    keep_order: Annotated[
        bool, typer.Option("--keep-order", help="Name the types in their own order in each row.")
    ] = False,
    types_per_row: Annotated[
        int | None,
        whole(
            1,
            MOST,
            "--types-per-row",
            text="Name the types of the sentence and others, up to this number.",
        ),
    ] = None,
    drop_types: Annotated[
        int,
        whole(
            0, 99, "--drop-types", text="Percent of types that rows leave out, with their entities."
        ),
    ] = 0,
    name_dataset: Annotated[
        bool, typer.Option("--name-dataset", help="Name the data set in the instruction.")
    ] = False,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Another wording: a text with {types}, {sentence} and, if wanted, {dataset}.",
        ),
    ] = None,
    max_words: Annotated[
        int | None,
        whole(1, MOST, "--max-words", text="Cut longer sentences into windows of so many words."),
    ] = None,
    overlap: Annotated[int, whole(0, MOST, text="Words that two windows have in common.")] = 0,
    cap: Annotated[
        int, whole(0, MOST, text="Most sentences of a data set of each input; 0 takes all.")
    ] = 10_000,
    sampling: Annotated[
        str,
        typer.Option(
            metavar="random|first", parser=plain_text, help="Which sentences a cap leaves."
        ),
    ] = "random",
    over_sample: Annotated[
        bool, typer.Option("--over-sample", help="Repeat smaller data sets up to the cap.")
    ] = False,
    seed: Annotated[int, whole(0, 2**64 - 1, text="Of orders and choices.")] = 0,
    skip_bad_rows: SkipBadRows = False,
) -> None:
    """Turn sentences with entities into the instructions and targets that GNER is trained with.

    A JSONL row holds words and labels, or text and entities with offsets; types if it has any.
    """
    with starting():
        from lmcore.ner import ExampleConfig, SampleConfig, write_examples
    config = ExampleConfig(
        context=context, boundaries=boundaries, shuffle_types=not keep_order, seed=seed,
        types_per_row=types_per_row, drop_share=drop_types / 100, name_dataset=name_dataset,
        template=_read_template(template), max_words=max_words, overlap=overlap,
    )  # fmt: skip
    sample = SampleConfig(cap=cap or None, sampling=sampling, over_sample=over_sample, seed=seed)
    _show(write_examples(*_split_names(files), config, sample=sample, **_read_options(locals())))


def _read_options(values: dict[str, Any]) -> dict[str, Any]:
    """What reading takes of a command's options, which are its arguments by name."""
    names = ("dataset", "split", "word_column", "label_column", "skip_bad_rows")
    types = [name.strip() for name in (values["types"] or "").split(",") if name.strip()]
    return {name: values[name] for name in names} | {
        "format": values["data_format"], "types": types
    }  # fmt: skip


def _split_names(files: list[str]) -> tuple[list[str], str]:
    if len(files) < 2:
        raise ValueError(f"give inputs and an output, IN... OUT.jsonl: got {files[0]!r} alone")
    return files[:-1], files[-1]


def _read_template(name: str | None) -> str | None:
    """The text of a template, without the end of its last line."""
    if name is None:
        return None
    data = Path(name).read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode().replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 at byte {error.start + 1}") from None


def _show(summary: DataSummary) -> None:
    """Prints what became of the sentences, and all that is not as somebody may expect it."""
    for line in _lines(summary):
        say(line)


def _lines(summary: DataSummary) -> Iterator[str]:
    for part in summary.inputs:
        for problem in part.report.listed_bad_rows:
            yield f"skipped {problem}"
        for dataset, count in part.read.items():
            taken = part.taken.get(dataset, 0)
            yield f"{part.name}: {taken} of {count} sentences of {dataset} taken"
        if part.report.types_from:
            shown = ", ".join(part.types[:_LISTED_TYPES])
            more = ", ..." if len(part.types) > _LISTED_TYPES else ""
            yield f"{part.name}: types from {part.report.types_from}: {shown}{more}"
        for count, text in (
            (part.report.repaired_labels, "labels that begin an entity without B-"),
            (part.report.cut_words, "words that were cut at the edge of an entity"),
            (part.report.comments, "comments that were left out"),
            (part.report.documents, "lines that begin a document, left out"),
        ):
            if count:
                yield f"{part.name}: {text}: {count}"
    report = summary.report
    for count, text in (
        (report.cut_sentences, "sentences that were cut into windows"),
        (report.cut_entities, "entities that are longer than a window, and cut"),
        (report.dropped_entities, "entities of types that were left out"),
        (report.crowded_rows, "rows whose sentence has more types than --types-per-row"),
        (report.joined_entities, "entities that IO labels join with one before them"),
        (report.unreadable_words, "rows with a word that reads as a label"),
        (report.empty_targets, "empty targets, of sentences without an entity"),
    ):
        if count:
            yield f"{text}: {count}"
    yield f"{report.rows} rows written, {summary.bad_rows} sentences skipped"
