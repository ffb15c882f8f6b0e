"""The command `lmcore openba convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._text import count_noun
from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, Quiet, name_of_file, plain_text, whole
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from lmcore.openba import ConversionSummary


def convert_command(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of a training with Megatron, or of one of its iterations.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="OUT",
            parser=name_of_file,
            help="Another folder, which does not exist or is empty.",
            show_default=False,
        ),
    ],
    iteration: Annotated[
        int | None, whole(0, MOST, text="Which one; the last one by default.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float16|bfloat16|float32",
            parser=plain_text,
            help="Of the weights; that of the checkpoint by default.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR",
            parser=name_of_file,
            help="A SentencePiece file, or the folder of a tokenizer, that goes along.",
            show_default=False,
        ),
    ] = None,
    shard_mb: Annotated[int, whole(1, MOST, text="Megabytes of a file of weights.")] = 5000,
    quiet: Quiet = False,
) -> None:
    """Turn a checkpoint of the authors' training into a folder.

    It is one that `from_pretrained` opens. Weights are streamed, whatever their size and the number
    of ranks; the optimizer's state is not read. A killed run goes on where it was.
    """
    options = {"iteration": iteration, "dtype": dtype, "tokenizer": tokenizer}
    _say_summary(_convert(checkpoint, out, quiet, max_shard_bytes=shard_mb * 10**6, **options))


def _convert(checkpoint: str, out: str, quiet: bool, **options: Any) -> ConversionSummary:
    with starting():
        from tqdm import tqdm

        from lmcore.openba import convert

    with tqdm(unit="B", unit_scale=True, disable=True if quiet else None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return convert(checkpoint, out, progress=progress, **options)


def _say_summary(summary: ConversionSummary) -> None:
    before = f", {summary.kept_files} of them before" if summary.kept_files else ""
    files = count_noun(len(summary.files), "file")
    ranks = count_noun(summary.ranks, "rank")
    which = "" if summary.iteration is None else f" of iteration {summary.iteration}"
    say(
        f"{summary.tensors} tensors{which} joined from {ranks}: {summary.parameters:,} parameters "
        f"as {' and '.join(summary.dtypes)}, {summary.bytes:,} bytes in {files}{before}"
    )
