"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from lmcore.ops.entities import SCHEMES

Scheme = Annotated[
    str,
    typer.Option(
        metavar="|".join(SCHEMES),
        help="How labels are read and entities compared: gner (normalised text and type, a set "
        "per sentence), universalner (the same per type), strict and conll (positions and "
        "type), iob2 (positions; only B- starts an entity).",
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Compare with what this tokenizer (folder or name) makes of the words."
    ),
]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="List rows that cannot be used and go on.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Number of threads; all cores by default.")
]

Data = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Interactions: `user item` lines, `user item item ...` lines, or RecBole's .inter.",
        show_default=False,
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="auto|pairs|sequences|inter",
        help="Form of the data; auto looks at the name and the first line.",
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="DIR",
        help="Folder of a run, or a file of SASRec weights (.pth, .pt, .safetensors).",
        show_default=False,
    ),
]
Heads = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Attention heads of a file of weights."),
]
Device = Annotated[
    str | None, typer.Option(metavar="cpu|cuda|auto", help="Where to compute; auto by default.")
]
