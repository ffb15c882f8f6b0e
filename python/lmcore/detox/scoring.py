"""Files of texts to files of scored texts, row by row."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmcore._row_stream import RowStream
from lmcore._rows import Row, parse_row
from lmcore.detox.data import find_form, parse_line, parse_prompt
from lmcore.detox.scorers import Explainer, Scorer, check_scores
from lmcore.detox.toxicity import TOXIC_ABOVE

_ROWS = 256
# Of what is written: further ones hang on how a CPU computes exp.
_DIGITS = 6


@dataclass(kw_only=True, slots=True, frozen=True)
class ScoreSummary:
    """What `score_file` did."""

    rows: int
    """Rows of the input that have their score, from earlier starts as well."""
    resumed_rows: int
    """Those of earlier starts, which the counts below do not hold."""
    bad_rows: int
    listed_bad_rows: list[str]
    scored: int
    """Texts that were scored in this start."""
    toxic: int
    """Those of them above 0.5."""
    mean: float | None
    """Of their scores; None without any."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts in one level, for JSON."""
        names = ("rows", "resumed_rows", "bad_rows", "scored", "toxic", "mean")
        return {name: getattr(self, name) for name in names}


def score_file(
    scorer: Scorer,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    form: str = "auto",
    field: str | None = None,
    words: bool = False,
    resume: bool = True,
    skip_bad_rows: bool = False,
    batch_size: int = _ROWS,
    progress: Callable[[int], object] | None = None,
) -> ScoreSummary:
    r"""Writes the rows of a file with `toxicity`, and on demand `toxic_words`, in their order.

    Scores are written with six digits.

    Args:
        scorer: texts to numbers from 0 to 1. Rows of an earlier start are gone on with where the
            scorer has the same `key`; without a key the file is begun anew.
        source: texts as for `lmcore.detox.data`; `.gz` is decompressed, `-` is standard input.
        target: where the rows go, as JSONL; `-` is standard output.
        form: of the source, one of `lmcore.detox.data.FORMS`.
        field: the key of the text; `text` or `prompt` if None.
        words: whether rows have the words that made the score, the largest share first.
        resume: go on where an earlier run ended; otherwise start anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        batch_size: rows that the scorer is given at once.
        progress: called with the number of rows of each batch that is done.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        OSError: a file cannot be read or written.
        TypeError: the scorer returned something that is no number.
        ValueError: a row cannot be used, with file and line; the scorer returned something else
            than numbers from 0 to 1, or cannot say words.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, target = Path(folder, "in.txt"), Path(folder, "out.jsonl")
        ...     _ = source.write_text("nice\nblap\n")
        ...     summary = score_file(lambda texts: [t == "blap" for t in texts], source, target)
        ...     target.read_text()
        '{"text": "nice", "toxicity": 0.0}\n{"text": "blap", "toxicity": 1.0}\n'
    """
    form = find_form(source, form)
    explain = _find_explain(scorer) if words else None
    key = getattr(scorer, "key", None)
    recipe = {"scorer": key, "format": form, "field": field, "words": words}
    scores: list[float] = []
    with RowStream(
        source, target, {**recipe, "batch_size": batch_size}, resume=resume and key is not None,
        skip_bad_rows=skip_bad_rows, by_block=True, parse=_make_parser(form, field),
    ) as stream:  # fmt: skip
        block: list[Row] = []

        def finish() -> None:
            texts = [parse_prompt(row.value, form, field=field).text for row in block]
            found = check_scores(scorer(texts), texts).tolist() if texts else []
            for row, text, score in zip(block, texts, found, strict=True):
                made = {**row.value, "toxicity": round(score, _DIGITS)}
                stream.write(row, made | ({"toxic_words": explain(text)} if explain else {}))
            stream.release()
            scores.extend(found)
            if progress is not None and block:
                progress(len(block))
            block.clear()

        for row in stream:
            block.append(row)
            if len(block) == batch_size:
                finish()
        finish()
    return ScoreSummary(
        rows=stream.rows, resumed_rows=stream.resumed_rows, bad_rows=stream.bad_rows,
        listed_bad_rows=list(stream.listed_bad_rows), scored=len(scores),
        toxic=sum(score > TOXIC_ABOVE for score in scores),
        mean=sum(scores) / len(scores) if scores else None,
    )  # fmt: skip


def _make_parser(form: str, field: str | None) -> Callable[[bytes], dict[str, Any]]:
    """What makes a row of a line, and refuses one that has no text or was scored before."""
    parse = parse_line if form == "lines" else parse_row

    def parse_text(content: bytes) -> dict[str, Any]:
        value = parse(content)
        parse_prompt(value, form, field=field)
        taken = [key for key in ("toxicity", "toxic_words") if key in value]
        if taken:
            raise ValueError(f"has {taken[0]} already")
        return value

    return parse_text


def _find_explain(scorer: Scorer) -> Callable[[str], Sequence[dict[str, Any]]]:
    if not isinstance(scorer, Explainer):
        raise ValueError("the scorer does not say which words made a score")

    def explain(text: str) -> list[dict[str, Any]]:
        words = [word for word in scorer.explain(text) if word.weight > 0]
        words.sort(key=lambda word: -word.weight)
        return [{**word._asdict(), "weight": round(word.weight, _DIGITS)} for word in words]

    return explain
