"""The command `lmcore diffusion score`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, AsJson, Device, Threads, limit_threads, name_of_file, whole
from lmcore.cli.terminal import say, show, show_json

if TYPE_CHECKING:
    from lmcore.diffusion import FileScores
    from lmcore.diffusion.scoring import More


def score_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            parser=name_of_file,
            help="JSONL with recover, reference and source, and with references where a source has "
            "several. A name that ends with .gz is decompressed, `-` is standard input.",
            show_default=False,
        ),
    ],
    perplexity: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="A causal language model: perplexity of outputs and of references.",
        ),
    ] = None,
    bertscore: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="An encoder: BERTScore of outputs against references.",
        ),
    ] = None,
    bertscore_layer: Annotated[
        int | None, whole(0, MOST, text="Whose states are compared; the last by default.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Score generated texts: BLEU, ROUGE, distinct, repetition, self-BLEU, entropy, sacrebleu.

    A row with several references is held against all of them. Rows without output or reference are
    left out and counted. Mauve is not built.
    """
    if bertscore is None and bertscore_layer is not None:
        raise ValueError("--bertscore-layer goes with --bertscore")
    models = (perplexity, bertscore, bertscore_layer, "auto" if device is None else device)
    scores = _score(files, limit_threads(threads), _make_model_scores(*models))
    _warn(scores)
    if as_json:
        show_json(_to_dict(scores))
    else:
        show(_format(scores))


def _score(files: list[str], threads: int | None, more: list[More]) -> list[FileScores]:
    with starting():
        from lmcore.diffusion import score_file

    for place, name in enumerate(files):
        if name in files[:place]:
            raise ValueError(f"{name}: the file is named twice")
    return [score_file(name, threads=threads, more=more) for name in files]


def _make_model_scores(
    causal: str | None, encoder: str | None, layer: int | None, device: str
) -> list[More]:
    """What computes the scores of models that were asked for."""
    if causal is None and encoder is None:
        return []
    with starting():
        from lmcore.diffusion.model_scores import compute_bert_scores, compute_perplexity

    def add_perplexity(outputs: list[str], references: list[list[str]]) -> dict[str, float]:
        values = {}
        gold = [text for texts in references for text in texts]
        for name, texts in {"perplexity": outputs, "perplexity_reference": gold}.items():
            values[name], left_out = compute_perplexity(texts, str(causal), device=device)
            if left_out:
                say(f"{name}: {left_out} of {len(texts)} texts have a single token: left out")
        return values

    def add_bert_scores(outputs: list[str], references: list[list[str]]) -> dict[str, float]:
        place = str(encoder)
        found = compute_bert_scores(outputs, references, place, layer=layer, device=device)
        return {f"bertscore_{name}": value for name, value in found._asdict().items()}

    asked = [(causal, add_perplexity), (encoder, add_bert_scores)]
    return [compute for folder, compute in asked if folder is not None]


def _warn(scores: Sequence[FileScores]) -> None:
    from lmcore._extras import DISTRIBUTION
    from lmcore._streams import name_input
    from lmcore.diffusion.gpt2_tokens import find_merges

    for result in scores:
        if result.empty_rows:
            name, total = name_input(result.path), result.rows + result.empty_rows
            say(
                f"{name}: {result.empty_rows} of {total} rows left out, without output or "
                f"reference; the first: {result.first_empty}"
            )
    hint = f'pip install "{DISTRIBUTION}[score]"'
    if scores[0].values["sacrebleu"] is None:
        say(f"sacrebleu is not installed: {hint}")
    if find_merges() is None:
        say(f"self-BLEU counts GPT-2's tokens, and its merges are not installed: {hint}")


def _to_dict(scores: Sequence[FileScores]) -> dict[str, Any]:
    """The scores of one file in one level; of several, under the names of the files."""
    found = {result.path: result.to_dict() for result in scores}
    return found if len(found) > 1 else scores[0].to_dict()


def _format(scores: Sequence[FileScores]) -> str:
    """A column for each file."""
    from lmcore._streams import name_input
    from lmcore._tables import format_table
    from lmcore._text import escape

    columns = [result.to_dict() for result in scores]
    names = [name for name in columns[0] if name != "sacrebleu_signature"]
    rows = [(name, *(_show(column[name]) for column in columns)) for name in names]
    lines = format_table(rows, ("score", *(escape(name_input(result.path)) for result in scores)))
    signature = scores[0].values["sacrebleu_signature"]
    return "\n".join([*lines, *([f"sacrebleu {signature}"] if signature else [])])


def _show(value: float | str | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
