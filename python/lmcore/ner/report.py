"""Scores as a table for the terminal, and as a page with the worst sentences side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

from lmcore import _page, _tables
from lmcore._text import escape as show
from lmcore.ner import page
from lmcore.ner.breakdown import COUNTINGS, Breakdown
from lmcore.ner.comparison import Comparison
from lmcore.ner.evaluation import DatasetScores, Scores
from lmcore.ops.entities import Quality, Span, decode_spans
from lmcore.ops.matching import parse_generation
from lmcore.ops.predictions import WorstSentence

_SHOWN_LABELS = 10
_MATCHING = "exact, subsequence, lcs: rows by the condition that matched them"
_WORDS = "omitted, added, replaced: words of the input or the generation that found no partner"


def format_table(scores: Scores, details: Mapping[str, Breakdown] | None = None) -> str:
    """Returns the scores as lines of text, in which names from data are escaped.

    Args:
        scores: of one or more data sets.
        details: of each, if they shall be shown.

    Example:
        >>> from lmcore.ner import score
        >>> row = {"types": ["x"], "words": ["a"], "labels": ["B-x"], "prediction": "a(B-x)"}
        >>> print(format_table(score([row], scheme="strict")).splitlines()[2])
        data set  rows  precision  recall      F1  gold  predicted  correct
    """
    datasets = list(scores.datasets.values())
    quality = [
        (show(d.name), _count(d.rows), *_percents(d.quality), *map(_count, d.entities))
        for d in datasets
    ]
    mean = [(show(name), "", *_percents(q), "", "", "") for name, q in _means(scores)]
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
    if named := _invalid_labels(scores):
        lines += ["", "generated labels outside of the types"]
        lines += _tables.format_table([(show(name), _count(n)) for name, n in named])
    for name, part in (details or {}).items():
        lines += ["", f"by type: {show(name)}", *_tables.format_table(*_types(part, show))]
        lines += ["", f"matches in part: {show(name)}", *_tables.format_table(*_partial(part))]
    if scores.bad_rows:
        listed = scores.listed_bad_rows
        lines += ["", f"skipped {scores.bad_rows} bad rows", *(f"  {show(row)}" for row in listed)]
        if scores.bad_rows > len(listed):
            lines.append(f"  and {scores.bad_rows - len(listed)} more")
    return "\n".join(lines)


def render_html(scores: Scores, details: Mapping[str, Breakdown] | None = None) -> str:
    """Returns a page that needs no other file.

    Args:
        scores: with `worst` sentences, if they shall be shown.
        details: of each data set, if they shall be shown.

    Example:
        >>> from lmcore.ner import score
        >>> row = {"types": ["x"], "words": ["a"], "labels": ["B-x"], "prediction": "a(O)"}
        >>> "<mark" in render_html(score([row], worst=1))
        True
    """
    datasets = list(scores.datasets.values())
    quality = [
        [escape(d.name), _count(d.rows), *_percents(d.quality), *map(_count, d.entities)]
        for d in datasets
    ]
    quality += [[escape(name), "", *_percents(q), "", "", ""] for name, q in _means(scores)]
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
        _page.table(
            ["data set", "rows", "precision", "recall", "F1", "gold", "predicted", "correct"],
            quality,
        ),
        "<h2>How the generated words were matched</h2>",
        _page.table(
            [
                "data set", "exact", "subsequence", "lcs", "omitted", "added", "replaced",
                "invalid labels", "empty",
            ],
            matching,
        ),
        f"<p class=note>{_MATCHING}. {_WORDS}. Invalid labels are outside the row's list; "
        "empty rows hold no labelled word.</p>",
        "<h2>Gold entities that were missed</h2>",
        _page.table(["data set", "gold", "unlabelled", "noisy", "boundary"], missed),
        "<p class=note>By position. Unlabelled: no predicted entity touches it. Noisy: only "
        "entities of other types do. Boundary: one of its type does, with another extent.</p>",
    ]  # fmt: skip
    if named := _invalid_labels(scores):
        parts.append("<h2>Generated labels outside of the types</h2>")
        parts.append(_page.table(["label", "count"], [[escape(a), _count(n)] for a, n in named]))
    for name, part in (details or {}).items():
        for title, (body, head) in (("By type", _types(part, escape)),
                                    ("Matches in part", _partial(part))):  # fmt: skip
            parts += [f"<h2>{title}: {escape(name)}</h2>", _page.table(head, body)]
    if any(dataset.worst for dataset in datasets):
        parts.append(
            "<p class=note>✓ right: the gold and the predicted entity have the same place and "
            "type. ✗ wrong: missed, or not in gold.</p>"
        )
    for dataset in datasets:
        if dataset.worst:
            parts.append(f"<h2>Worst sentences of {escape(dataset.name)}</h2>")
            parts += [_sentence(dataset, sentence) for sentence in dataset.worst]
    if scores.bad_rows:
        rows = "".join(f"<li>{escape(row)}</li>" for row in scores.listed_bad_rows)
        parts.append(f"<h2>Skipped rows: {scores.bad_rows}</h2><ul class=bad>{rows}</ul>")
    return _page.render("Named entity scores", parts)


def format_comparison(comparison: Comparison) -> str:
    """Returns the difference of two models as lines of text.

    Args:
        comparison: of two files.

    Example:
        >>> empty = Comparison(first="a", second="b", scheme="gner", resamples=1, seed=0,
        ...                    differences=())
        >>> print(format_comparison(empty).splitlines()[1])
        F1 of a minus F1 of b
    """
    rows = [
        (show(d.name), _count(d.rows), f"{100 * d.first.f1:.2f}", f"{100 * d.second.f1:.2f}",
         f"{100 * d.f1:+.2f}", f"{100 * d.low:+.2f} to {100 * d.high:+.2f}",
         "differ" if d.is_clear else "may be chance")
        for d in comparison.differences
    ]  # fmt: skip
    head = ("data set", "rows", "first", "second", "difference", "95 % interval", "verdict")
    return "\n".join([
        f"scheme {comparison.scheme}",
        f"F1 of {show(comparison.first)} minus F1 of {show(comparison.second)}",
        f"{comparison.resamples} paired samples of the rows, seed {comparison.seed}",
        "",
        *_tables.format_table(rows, head),
    ])  # fmt: skip


def _sentence(dataset: DatasetScores, sentence: WorstSentence) -> str:
    parsed = parse_generation(sentence.prediction)
    location = f"{sentence.path}:{sentence.row}" if sentence.path else f"row {sentence.row}"
    gold = decode_spans(sentence.labels, dataset.scheme)
    found = decode_spans(sentence.predicted, dataset.scheme)
    both = {*gold} & {*found}
    wrong = [(s, "missed") for s in gold if s not in both]
    wrong += [(s, "not in gold") for s in found if s not in both]
    listed = "".join(
        f"<p>{page.mark(_text(sentence, span), span.type, False, name)} {name}</p>"
        for span, name in sorted(wrong)
    )
    pair = (
        f"<div class=pair><div><h3>gold</h3>"
        f"<p>{page.mark_entities(sentence.words, gold, both, 'missed')}</p></div>"
        f"<div><h3>predicted</h3>"
        f"<p>{page.mark_entities(sentence.words, found, both, 'not in gold')}</p></div></div>"
    )
    summary = f"the whole sentence, {len(sentence.words)} words"
    matched = set(sentence.alignment)
    words = []
    for index, (word, label) in enumerate(zip(parsed.words, parsed.labels, strict=True)):
        text = escape(word) + ("" if label == "O" else f"\u00a0<sub>{escape(label)}</sub>")
        words.append(f"<del>{text}</del>" if index not in matched else text)
    lost = [word for word, k in zip(sentence.words, sentence.alignment, strict=True) if k == -1]
    missing = "".join(f" <ins>{escape(word)}</ins>" for word in lost)
    report = f"<p class=note>Words without a partner:{missing}</p>" if missing else ""
    return (
        f"<section><header><span>{escape(location)}</span>"
        f"<span>{sentence.wrong} wrong · {sentence.matching}</span></header>"
        f"<div class=list>{listed}</div>"
        f"{_page.fold(pair, summary, is_long=page.is_long(sentence.words))}"
        f"<details><summary>generated text</summary><p>{' '.join(words)}</p>{report}</details>"
        "</section>"
    )


def _text(sentence: WorstSentence, span: Span) -> str:
    return page.join_words(sentence.words[span.start : span.end])


def _means(scores: Scores) -> list[tuple[str, Quality]]:
    """The mean over the data sets of each file, or over all of them."""
    if len(scores.datasets) < 2:
        return []
    if scores.compares:
        return [(f"{file}: mean", quality) for file, quality in scores.means.items()]
    return [("mean", scores.mean)]


def _invalid_labels(scores: Scores) -> list[tuple[str, int]]:
    """The most frequent ones with their counts, and those of all others."""
    counts: Counter[str] = Counter()
    for dataset in scores.datasets.values():
        counts.update(dataset.named_invalid_labels)
    shown = counts.most_common(_SHOWN_LABELS)
    rest = sum(d.invalid_labels for d in scores.datasets.values()) - sum(n for _, n in shown)
    return [*shown, ("others", rest)] if rest else shown


def _types(part: Breakdown, show_name: Callable[[str], str]) -> tuple[Any, list[str]]:
    """Rows and names of columns of the scores by type."""
    rows = [
        [show_name(name), *_percents(scores.quality), *map(_count, scores.entities),
         *(_count(number) for number in scores.errors[1:])]
        for name, scores in part.types.items()
    ]  # fmt: skip
    rows.append(["mean of the types", *_percents(part.macro), *[""] * 6])
    return rows, [
        "type", "precision", "recall", "F1", "gold", "predicted", "correct", "unlabelled", "noisy",
        "boundary",
    ]  # fmt: skip


def _partial(part: Breakdown) -> tuple[Any, list[str]]:
    """Rows and names of columns of partial matches."""
    rows = [
        [name, *_percents(part.partial[name].quality), *map(_count, part.partial[name])]
        for name in COUNTINGS
    ]
    return rows, [
        "counting", "precision", "recall", "F1", "correct", "incorrect", "partial", "missed",
        "spurious",
    ]  # fmt: skip


def _percents(quality: Iterable[float]) -> list[str]:
    return [f"{100 * value:.2f}" for value in quality]


def _count(number: int) -> str:
    return f"{number}"


def _part(number: int, whole: int) -> str:
    return f"{number} ({100 * number / max(whole, 1):.1f} %)"
