"""Scores as a table for the terminal, and as a page with the worst sentences side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from lmcore import _tables
from lmcore._text import escape as show
from lmcore.ner.evaluation import DatasetScores, Scores
from lmcore.ops.entities import decode_spans
from lmcore.ops.matching import parse_generation
from lmcore.ops.predictions import WorstSentence

_MATCHING = "exact, subsequence, lcs: rows by the condition that matched them"
_WORDS = "omitted, added, replaced: words of the input or the generation that found no partner"


def format_table(scores: Scores) -> str:
    """Returns the scores as lines of text, in which names from data are escaped.

    Args:
        scores: of one or more data sets.

    Example:
        >>> from lmcore.ner import score
        >>> row = {"label_list": ["x"], "words": ["a"], "labels": ["B-x"], "prediction": "a(B-x)"}
        >>> print(format_table(score([row], scheme="strict")).splitlines()[2])
        data set  rows  precision  recall      F1  gold  predicted  correct
    """
    datasets = list(scores.datasets.values())
    quality = [
        (show(d.name), _count(d.rows), *_percents(d.quality), *map(_count, d.entities))
        for d in datasets
    ]
    mean = [("mean", "", *_percents(scores.mean), "", "", "")] if len(datasets) > 1 else []
    matching = [
        (
            show(d.name),
            *map(_count, (d.exact, d.subsequence, d.lcs, d.omitted, d.added, d.substituted)),
            _count(d.invalid_labels),
            _count(d.empty_predictions),
        )
        for d in datasets
    ]
    missed = [
        (show(d.name), _count(d.errors.gold), *(_part(n, d.errors.gold) for n in d.errors[1:]))
        for d in datasets
    ]
    lines = [
        f"scheme {scores.scheme}",
        "",
        *_tables.format_table(
            [*quality, *mean],
            ("data set", "rows", "precision", "recall", "F1", "gold", "predicted", "correct"),
        ),
        "",
        "how the generated words were matched",
        *_tables.format_table(
            matching,
            (
                "data set", "exact", "subsequence", "lcs", "omitted", "added", "replaced",
                "invalid labels", "empty",
            ),
        ),
        "",
        "gold entities that were missed, by position",
        *_tables.format_table(missed, ("data set", "gold", "unlabelled", "noisy", "boundary")),
    ]  # fmt: skip
    if scores.bad_rows:
        listed = scores.listed_bad_rows
        lines += ["", f"skipped {scores.bad_rows} bad rows", *(f"  {show(row)}" for row in listed)]
        if scores.bad_rows > len(listed):
            lines.append(f"  and {scores.bad_rows - len(listed)} more")
    return "\n".join(lines)


def render_html(scores: Scores) -> str:
    """Returns a page that needs no other file.

    Args:
        scores: with `worst` sentences, if they shall be shown.

    Example:
        >>> from lmcore.ner import score
        >>> row = {"label_list": ["x"], "words": ["a"], "labels": ["B-x"], "prediction": "a(O)"}
        >>> "<mark" in render_html(score([row], worst=1))
        True
    """
    datasets = list(scores.datasets.values())
    quality = [
        [escape(d.name), _count(d.rows), *_percents(d.quality), *map(_count, d.entities)]
        for d in datasets
    ]
    if len(datasets) > 1:
        quality.append(["mean", "", *_percents(scores.mean), "", "", ""])
    matching = [
        [
            escape(d.name),
            *map(_count, (d.exact, d.subsequence, d.lcs, d.omitted, d.added, d.substituted)),
            _count(d.invalid_labels),
            _count(d.empty_predictions),
        ]
        for d in datasets
    ]
    missed = [
        [
            escape(d.name),
            _count(d.errors.gold),
            *(_part(number, d.errors.gold) for number in d.errors[1:]),
        ]
        for d in datasets
    ]
    parts = [
        "<h1>Named entity scores</h1>",
        f"<p>Scheme <b>{scores.scheme}</b>. Precision, recall and F1 in percent.</p>",
        _table(
            ["data set", "rows", "precision", "recall", "F1", "gold", "predicted", "correct"],
            quality,
        ),
        "<h2>How the generated words were matched</h2>",
        _table(
            [
                "data set", "exact", "subsequence", "lcs", "omitted", "added", "replaced",
                "invalid labels", "empty",
            ],
            matching,
        ),
        f"<p class=note>{_MATCHING}. {_WORDS}. Invalid labels are outside the row's list; "
        "empty rows hold no labelled word.</p>",
        "<h2>Gold entities that were missed</h2>",
        _table(["data set", "gold", "unlabelled", "noisy", "boundary"], missed),
        "<p class=note>By position. Unlabelled: no predicted entity touches it. Noisy: only "
        "entities of other types do. Boundary: one of its type does, with another extent.</p>",
    ]  # fmt: skip
    for dataset in datasets:
        if dataset.worst:
            parts.append(f"<h2>Worst sentences of {escape(dataset.name)}</h2>")
            parts += [_sentence(dataset, sentence) for sentence in dataset.worst]
    if scores.bad_rows:
        rows = "".join(f"<li>{escape(row)}</li>" for row in scores.listed_bad_rows)
        parts.append(f"<h2>Skipped rows: {scores.bad_rows}</h2><ul class=bad>{rows}</ul>")
    return _PAGE.replace("{body}", "\n".join(parts))


def _sentence(dataset: DatasetScores, sentence: WorstSentence) -> str:
    parsed = parse_generation(sentence.prediction)
    place = f"{sentence.path}:{sentence.row}" if sentence.path else f"row {sentence.row}"
    gold = _entities(sentence.words, sentence.labels, dataset)
    found = _entities(sentence.words, sentence.predicted, dataset)
    matched = set(sentence.alignment)
    words = []
    for index, (word, label) in enumerate(zip(parsed.words, parsed.labels, strict=True)):
        text = escape(word) + ("" if label == "O" else f"<sub>{escape(label)}</sub>")
        words.append(f"<del>{text}</del>" if index not in matched else text)
    lost = [word for word, k in zip(sentence.words, sentence.alignment, strict=True) if k == -1]
    missing = "".join(f" <ins>{escape(word)}</ins>" for word in lost)
    report = f"<p class=note>Words without a partner:{missing}</p>" if missing else ""
    return (
        f"<section><header><span>{escape(place)}</span>"
        f"<span>{sentence.wrong} wrong · {sentence.matching}</span></header>"
        f"<div class=pair><div><h3>gold</h3><p>{gold}</p></div>"
        f"<div><h3>predicted</h3><p>{found}</p></div></div>"
        f"<details><summary>generated text</summary><p>{' '.join(words)}</p>{report}</details>"
        "</section>"
    )


def _entities(words: Sequence[str], labels: Sequence[str], dataset: DatasetScores) -> str:
    pieces: list[str] = []
    end = 0
    for span in decode_spans(labels, dataset.scheme):
        hue = dataset.label_list.index(span.type) * 137 % 360
        text = escape(" ".join(words[span.start : span.end]))
        pieces += map(escape, words[end : span.start])
        pieces.append(f'<mark style="--hue:{hue}">{text}<sub>{escape(span.type)}</sub></mark>')
        end = span.end
    return " ".join([*pieces, *map(escape, words[end:])])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{titles}</tr>{body}</table></div>"


def _percents(quality: Iterable[float]) -> list[str]:
    return [f"{100 * value:.2f}" for value in quality]


def _count(number: int) -> str:
    return f"{number}"


def _part(number: int, whole: int) -> str:
    return f"{number} ({100 * number / max(whole, 1):.1f} %)"


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Named entity scores</title>
<style>
:root { color-scheme: light dark; --ink: #1c1e21; --faint: #6a7078; --line: #d9dde2;
  --ground: #fff; --panel: #f6f7f9; --lightness: 88%; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --faint: #9aa1aa; --line: #383d44;
  --ground: #16181b; --panel: #1f2226; --lightness: 26%; } }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 72rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0 0 .4rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: .75rem; color: var(--faint); margin: 0; font-weight: 600;
  text-transform: uppercase; letter-spacing: .05em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem; text-align: right; border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; font-size: .85rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.note { color: var(--faint); font-size: .87rem; max-width: 60rem; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; margin: 0 0 .9rem; }
section header { display: flex; justify-content: space-between; gap: 1rem; color: var(--faint);
  font-size: .82rem; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; margin: .5rem 0; }
@media (max-width: 44rem) { .pair { grid-template-columns: 1fr; } }
.pair p, details p { margin: .25rem 0; overflow-wrap: anywhere; line-height: 1.9; }
mark { color: inherit; background: hsl(var(--hue) 70% var(--lightness)); border-radius: .3rem;
  padding: .1rem .3rem; }
sub { font-size: .68em; color: var(--faint); margin-left: .25em; vertical-align: baseline; }
del { text-decoration-color: #d1495b; } ins { text-decoration: none; font-weight: 600; }
summary { cursor: pointer; color: var(--faint); font-size: .85rem; }
.bad { font-family: ui-monospace, monospace; font-size: .85rem; }
</style>
<body>
{body}
</body>
</html>
"""
