"""The command `lmcore compression vocabulary`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._text import escape
from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, Quiet, name_of_file, whole
from lmcore.cli.terminal import say, show

if TYPE_CHECKING:
    from lmcore.compression import Proof, VocabularySummary


def parse_share(text: str) -> tuple[str, int]:
    """Returns a group and its number of tokens.

    Args:
        text: `GROUP=N`.

    Raises:
        typer.BadParameter: it is something else.

    Example:
        >>> parse_share("zh=20000")
        ('zh', 20000)
    """
    group, _, number = text.rpartition("=")
    if not group or not re.fullmatch("0*[0-9]{1,10}", number) or int(number) > MOST:
        raise typer.BadParameter(f"expected GROUP=N with N from 0 to {MOST}: got {text!r:.60}")
    return group, int(number)


def vocabulary_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_DIR",
            parser=name_of_file,
            help="Folder of a model of transformers, with its tokenizer.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT", parser=name_of_file, help="The new folder.", show_default=False
        ),
    ],
    counts: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="How often each token occurs: what `lmcore compression count` writes, or lines "
            "`id count`.",
            show_default=False,
        ),
    ],
    keep: Annotated[
        int,
        whole(1, MOST, text="Tokens that stay, special ones, bytes and characters included."),
    ],
    keep_per: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP=N",
            help="The N most frequent tokens of a group of the counts stay in any case; any number "
            "of times.",
        ),
    ] = None,
    multiple: Annotated[
        int, whole(1, 1 << 20, text="The number of rows of the embedding is one of it.")
    ] = 128,
    prove: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Texts on which the new model is proved to be the old one; any number of times.",
        ),
    ] = None,
    logits: Annotated[
        bool, typer.Option("--logits/--no-logits", help="Load both models for the proof, or not.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where OUT ended, or start anew.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Keep the most frequent tokens of a model, and prove that it is the same model.

    What special tokens, bytes and single characters need stays in any case. The new folder opens
    with from_pretrained; its pruning.json says what became of each id. A proof that fails exits
    with 1 and says where.
    """
    shares = dict(map(parse_share, keep_per or []))
    options = {"keep_per": shares, "multiple": multiple, "logits": logits, "resume": resume}
    summary = _prune(model, out, counts, keep, quiet, prove=prove or [], **options)
    show("\n".join(_describe(summary)))
    if summary.proof is not None and not summary.proof.passed:
        _say_failures(summary.proof)
        raise typer.Exit(1)


def _prune(
    model: str, out: str, counts: str, keep: int, quiet: bool, **options: Any
) -> VocabularySummary:
    with starting():
        from tqdm import tqdm

        from lmcore.compression import prune_vocabulary, read_counts

    bar = tqdm(unit="B", unit_scale=True, disable=True if quiet else None, leave=False)

    def update(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        return prune_vocabulary(model, out, read_counts(counts), keep, progress=update, **options)


def _describe(summary: VocabularySummary) -> list[str]:
    from lmcore._tables import format_table

    rows = [
        ("tokens", f"{summary.tokens_before:,} -> {summary.tokens:,}"),
        ("rows of the embedding", f"{summary.rows_before:,} -> {summary.rows:,}"),
        ("special tokens, bytes and their like", f"{summary.required:,}"),
        ("single characters that occur", f"{summary.characters:,}"),
        *((f"counted tokens that stay: {escape(group)}", f"{share:.3%}")
          for group, share in summary.coverage.items()),
        ("bytes of weights", f"{summary.bytes:,}"),
    ]  # fmt: skip
    if summary.proof is not None:
        rows += _describe_proof(summary.proof)
    return format_table(rows)


def _describe_proof(proof: Proof) -> list[tuple[str, str]]:
    tokens = f"{proof.tokens_before:,} -> {proof.tokens_after:,} ({proof.rise:+.3%})"
    logits = f"{proof.logits:,}, at most {proof.largest_difference:.3g} apart"
    return [
        ("lines whose tokens all stay", f"{proof.surviving_lines:,} of {proof.lines:,}"),
        ("lines with unknown words", f"{proof.unknown_lines:,}"),
        ("tokens of all lines", tokens),
        ("tensors with the same bits", f"{proof.tensors:,}"),
        ("logits compared", logits if proof.logits else "none"),
        ("proof", "holds" if proof.passed else f"FAILED: {proof.failed:,} differences"),
    ]  # fmt: skip


def _say_failures(proof: Proof) -> None:
    for failure in proof.failures:
        say(f"lmcore: {failure}")
    if proof.failed > len(proof.failures):
        say(f"lmcore: and {proof.failed - len(proof.failures):,} more")
