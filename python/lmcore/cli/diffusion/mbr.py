"""The command `lmcore diffusion mbr`."""

from __future__ import annotations

from typing import Annotated

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import Threads, limit_threads, name_of_file
from lmcore.cli.terminal import say


def mbr_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="OUT.jsonl...",
            parser=name_of_file,
            help="JSONL with recover, reference and source: the same sources in each, such as one "
            "file a seed. A name that ends with .gz is decompressed, `-` is standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="The rows with the chosen texts; .gz is compressed, `-` is standard output.",
            show_default=False,
        ),
    ],
    threads: Threads = None,
) -> None:
    """Choose of several texts for each source the one that the others agree with most.

    That is the one whose sentence BLEU against the others is largest in sum (minimum Bayes risk);
    of equal ones that of the first file.
    """
    with starting():
        from lmcore.diffusion import choose_candidates

    summary = choose_candidates(files, output, threads=limit_threads(threads))
    counts = " ".join(map(str, summary.chosen))
    say(f"{summary.rows} rows chosen, of the files in their order: {counts}")
