"""The command `lmcore compression remap`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import Quiet, name_of_file, plain_text, whole
from lmcore.cli.terminal import say, show

if TYPE_CHECKING:
    from lmcore.compression import RemapSummary

_SHOWN = 20


def remap_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            parser=name_of_file,
            help="Ids of the old tokenizer: PREFIX of PREFIX.bin and PREFIX.idx, .npy or .parquet.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            parser=name_of_file,
            help="Where the new ids go, in the same form.",
            show_default=False,
        ),
    ],
    record: Annotated[
        str,
        typer.Option(
            metavar="FILE|DIR",
            parser=name_of_file,
            help="The pruning.json of the model whose vocabulary was pruned, or its folder.",
            show_default=False,
        ),
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|FILE",
            parser=name_of_file,
            help="The old tokenizer: with --new-tokenizer, words with a piece that is gone are cut "
            "anew from their text.",
        ),
    ] = None,
    new_tokenizer: Annotated[
        str | None,
        typer.Option(metavar="DIR|FILE", parser=name_of_file, help="The new tokenizer."),
    ] = None,
    fill: Annotated[
        int | None,
        whole(0, 2**30 - 1, metavar="ID", text="New id for ids that are gone."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Leave out ids that are gone.")] = False,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="auto|uint16|int32|int64",
            parser=plain_text,
            help="Type of the new ids; auto is the smallest that holds them all.",
        ),
    ] = "auto",
    column: Annotated[
        str, typer.Option(metavar="NAME", parser=plain_text, help="Column of ids in parquet.")
    ] = "input_ids",
    quiet: Quiet = False,
) -> None:
    """Rewrite a corpus that is tokenized already for a pruned vocabulary.

    Each id becomes its new one. What is gone is cut anew from its text if both tokenizers are
    given: a word is put together from its old pieces, and cut by the new tokenizer. Otherwise
    nothing is written, and the most frequent ids that are gone are named, unless --fill or --drop
    says what becomes of them. Token files of groups of one length keep that length: where lengths
    change, the groups are cut anew, and what is left behind the last one is told.
    """
    options = {"fill": fill, "drop": drop, "dtype": dtype, "column": column}
    tokenizers = {"tokenizer": tokenizer, "new_tokenizer": new_tokenizer}
    _show_summary(_remap(source, target, record, quiet, **tokenizers, **options))


def _remap(source: str, target: str, record: str, quiet: bool, **options: Any) -> RemapSummary:
    with starting():
        from tqdm import tqdm

        from lmcore.compression import remap_file

    names = [name for name in (source, f"{source}.bin") if Path(name).is_file()]
    total = Path(names[0]).stat().st_size if names else None
    bar = tqdm(total=total, unit="B", unit_scale=True, disable=True if quiet else None, leave=False)
    with bar:
        return remap_file(
            source, target, record, progress=lambda done: bar.update(done - bar.n), **options
        )


def _show_summary(summary: RemapSummary) -> None:
    left = f", {summary.remainder:,} left over" if summary.remainder else ""
    say(
        f"{summary.tokens:,} ids became {summary.new_tokens:,} ({summary.dtype}){left}: "
        f"{summary.lost:,} were gone, and {summary.unknown:,} are of unknown text now"
    )
    for token, count in summary.lost_ids[:_SHOWN]:
        show(f"gone: id {token}, {count:,} times")
    if len(summary.lost_ids) > _SHOWN:
        rest = summary.lost_ids[_SHOWN:]
        show(f"gone: {len(rest):,} others, {sum(count for _, count in rest):,} times in all")
