"""Claim: the matcher is many times faster than the quadratic dynamic programme.

The paper compares implementations in one language, and so does the verdict: the Python
definitions against a Python dynamic programme. What Rust adds stands in the speed row.
"""

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmcore.ops.lcs import longest_common_subsequence
from lmcore.ops.matching import align_words
from lmcore.ops.philox import Stream, random_below
from lmcore.ops.predictions import score_examples
from lmcore.reference import entities as reference_entities
from lmcore.reference import lcs as reference_lcs
from lmcore.reference import matching as reference_matching
from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.worlds.ner import (
    LLAMA_MIX,
    Sentence,
    corrupt_sentences,
    generate_sentences,
    make_world,
)

_RATE = 0.01


@dataclass(kw_only=True, slots=True, frozen=True)
class _Band:
    """Sentence lengths from `shortest` to `longest`, and the paper's speed-ups for them."""

    name: str
    shortest: int
    longest: int
    paper_lcs: float
    paper_matching: float


_BANDS = (
    _Band(name="0-60", shortest=8, longest=59, paper_lcs=2.9, paper_matching=3.8),
    _Band(name="60-100", shortest=60, longest=99, paper_lcs=5.5, paper_matching=12.6),
    _Band(name="100-200", shortest=100, longest=199, paper_lcs=6.1, paper_matching=17.3),
)


@dataclass(kw_only=True, slots=True, frozen=True)
class _Effort:
    words: int
    """About how many in each band."""
    sentences: int
    """Of each corpus."""
    repetitions: int


_EFFORTS: dict[Size, _Effort] = {
    "tiny": _Effort(words=1_000, sentences=50, repetitions=1),
    "quick": _Effort(words=20_000, sentences=1_000, repetitions=5),
    "full": _Effort(words=100_000, sentences=10_000, repetitions=9),
}
_OPPONENTS = {
    "tuned": "quadratic LCS with a tuned loop, Python",
    "lcs_python": "N log N LCS, Python",
    "matching_python": "full matching, Python",
    "lcs": "LCS, lmcore.ops",
    "matching": "full matching, lmcore.ops",
}


def measure_speed(seed: int, size: Size) -> Measurement:
    """Returns how much faster than the dynamic programme each matcher is, by length band.

    The outputs of the definitions and of `lmcore.ops` must be equal, and the common
    subsequences as long as the dynamic programme's, before anything is timed.

    Args:
        seed: of sentences, lengths and damage.
        size: about 20,000 words per band, 1,000 sentences per corpus and 5 repetitions if quick,
            100,000, 10,000 and 9 if full, next to nothing if tiny.

    Returns:
        Values named `<band>/<matcher>`: time of the textbook's dynamic programme divided by the
        matcher's, on the same words, median over the repetitions. `corpus/<language>/...`
        compares parsing, matching and counting of whole data sets: the Python definitions
        against `lmcore.ops` with one thread and with all, and sentences per second of the
        latter.

    Raises:
        RuntimeError: two matchers disagree.
        ValueError: a seed out of range.
    """
    values: dict[str, float] = {}
    effort = _EFFORTS[size]
    for band in _BANDS:
        pairs = _word_pairs(band, effort.words, seed)
        _check_alignments(pairs)
        seconds = _time(_matchers(pairs), effort.repetitions)
        for name in _OPPONENTS:
            values[f"{band.name}/{name}"] = _speedup(seconds["dynamic_programme"], seconds[name])
    for language in ("en", "zh"):
        count = effort.sentences
        rows = make_world(seed, language=language, sentences=count, rate=_RATE).rows
        if _evaluate(rows) != _evaluate_by_definition(rows):
            raise RuntimeError(f"lmcore.ops and its definition disagree on seed {seed}, {language}")
        seconds = _time(
            {
                "python": functools.partial(_evaluate_by_definition, rows),
                "one_thread": functools.partial(_evaluate, rows, 1),
                "all_threads": functools.partial(_evaluate, rows),
            },
            effort.repetitions,
        )
        for threads in ("one_thread", "all_threads"):
            values[f"corpus/{language}/{threads}"] = _speedup(seconds["python"], seconds[threads])
        median = statistics.median(seconds["all_threads"])
        values[f"corpus/{language}/sentences_per_second"] = count / median
    return Measurement(values=values)


def matching_is_faster(estimates: Estimates) -> bool:
    """Returns whether the Python matchers reach the paper's speed-ups in each length band.

    Args:
        estimates: the numbers of `measure_speed`.
    """
    return all(
        estimates[f"{band.name}/lcs_python"].mean >= band.paper_lcs
        and estimates[f"{band.name}/matching_python"].mean >= band.paper_matching
        for band in _BANDS
    )


def align_by_dynamic_programme(
    a: Sequence[str], b: Sequence[str], *, tuned: bool = False
) -> list[int]:
    """Returns a longest common subsequence from the full table of n times m lengths.

    Where two words differ, the table takes the longer of both neighbours, the one to the left
    if they are equal; the walk back starts at the end of both sequences.

    Source: GNER (arXiv 2402.16602), the baseline of table 5.

    Args:
        a: n words.
        b: m words.
        tuned: fill the table with the fastest loop instead of the textbook's; the result is
            the same.

    Returns:
        For each word of `a` the index of its partner in `b`, or -1.

    Example:
        >>> align_by_dynamic_programme("a b b a".split(), "b a a b".split())
        [-1, -1, 0, 2]
    """
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    (_fill_tuned if tuned else _fill)(lengths, a, b)
    alignment = [-1] * len(a)
    i, j = len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            alignment[i] = j
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return alignment


def _fill(lengths: list[list[int]], a: Sequence[str], b: Sequence[str]) -> None:
    for i in range(len(a)):
        for j in range(len(b)):
            if a[i] == b[j]:
                lengths[i + 1][j + 1] = lengths[i][j] + 1
            else:
                lengths[i + 1][j + 1] = max(lengths[i][j + 1], lengths[i + 1][j])


def _fill_tuned(lengths: list[list[int]], a: Sequence[str], b: Sequence[str]) -> None:
    for i, word in enumerate(a):
        above, row = lengths[i], lengths[i + 1]
        diagonal = left = 0
        for j, other in enumerate(b, start=1):
            up = above[j]
            if word == other:
                left = diagonal + 1
            elif up > left:
                left = up
            row[j] = left
            diagonal = up


def _word_pairs(band: _Band, total: int, seed: int) -> list[tuple[list[str], list[str]]]:
    """Returns lower-cased words and generated words, of lengths spread evenly over the band."""
    count = 2 * total // (band.shortest + band.longest)
    span = band.longest - band.shortest + 1
    draws = random_below(seed, Stream.SENTENCE_LENGTHS, range(count), 1, bound=span)[:, 0]
    lengths = [band.shortest + int(draw) for draw in draws]
    supply = iter(generate_sentences("en", sum(lengths) // 8 + count, seed))
    sentences = []
    for length in lengths:
        words: list[str] = []
        while len(words) < length:
            words += next(supply).words
        words = [word.lower() for word in words[:length]]
        sentences.append(Sentence("generated-en", tuple(words), ("O",) * length, ()))
    generations = corrupt_sentences(sentences, _RATE, LLAMA_MIX, seed)
    return [
        (list(sentence.words), [w.word.lower() for w in written])
        for sentence, written in zip(sentences, generations, strict=True)
    ]


def _matchers(
    pairs: Sequence[tuple[list[str], list[str]]],
) -> dict[str, Callable[[], object]]:
    return {
        "dynamic_programme": lambda: [align_by_dynamic_programme(a, b) for a, b in pairs],
        "tuned": lambda: [align_by_dynamic_programme(a, b, tuned=True) for a, b in pairs],
        "lcs_python": lambda: [reference_lcs.longest_common_subsequence(a, b) for a, b in pairs],
        "matching_python": lambda: [reference_matching.align_words(a, b) for a, b in pairs],
        "lcs": lambda: [longest_common_subsequence(a, b) for a, b in pairs],
        "matching": lambda: [align_words(a, b) for a, b in pairs],
    }


def _check_alignments(pairs: Sequence[tuple[list[str], list[str]]]) -> None:
    for i, (a, b) in enumerate(pairs):
        by_definition = reference_lcs.longest_common_subsequence(a, b)
        if longest_common_subsequence(a, b).tolist() != by_definition:
            raise RuntimeError(f"pair {i}: longest_common_subsequence and its definition disagree")
        if align_words(a, b) != reference_matching.align_words(a, b):
            raise RuntimeError(f"pair {i}: align_words and its definition disagree")
        # Alignments of the same length may differ: the dynamic programme breaks ties otherwise.
        quadratic = align_by_dynamic_programme(a, b)
        if _length(quadratic) != _length(by_definition):
            raise RuntimeError(f"pair {i}: the dynamic programme found another length")
        if align_by_dynamic_programme(a, b, tuned=True) != quadratic:
            raise RuntimeError(f"pair {i}: both dynamic programmes disagree")


def _length(alignment: Sequence[int]) -> int:
    return sum(j != -1 for j in alignment)


def _evaluate(rows: list[dict[str, Any]], threads: int | None = None) -> tuple[int, ...]:
    """Returns the numbers of gold, predicted and correct entities."""
    datasets = score_examples(rows, "gner", threads=threads).datasets.values()
    return tuple(map(sum, zip(*(dataset.entities for dataset in datasets), strict=True)))


def _evaluate_by_definition(rows: list[dict[str, Any]]) -> tuple[int, ...]:
    sums = [0, 0, 0]
    for row in rows:
        words, gold = row["instance"]["words"], row["instance"]["labels"]
        match = reference_matching.match_labels(words, row["prediction"], row["label_list"])
        counts = reference_entities.count_entities(words, gold, match.labels, "gner")
        sums = [total + count for total, count in zip(sums, counts, strict=True)]
    return tuple(sums)


def _time(
    functions: Mapping[str, Callable[[], object]], repetitions: int
) -> dict[str, list[float]]:
    """Returns the seconds of each repetition; the functions take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repetitions):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _speedup(baseline: Sequence[float], other: Sequence[float]) -> float:
    """Returns the median ratio of times of the same turn, which shared the machine's state."""
    return statistics.median(b / o for b, o in zip(baseline, other, strict=True))


def _ratios(estimates: Estimates, name: str, digits: int) -> str:
    return " / ".join(estimates[f"{band.name}/{name}"].format(digits) for band in _BANDS)


def _describe(estimates: Estimates) -> str:
    return (
        "times faster, same bands\n"
        f"N log N LCS: {_ratios(estimates, 'lcs_python', 1)}\n"
        f"full matching: {_ratios(estimates, 'matching_python', 1)}\n"
        f"quadratic LCS, tuned: {_ratios(estimates, 'tuned', 1)}"
    )


def _describe_speed(estimates: Estimates) -> str:
    lines = [
        "lmcore.ops with one thread over the dynamic programme: "
        f"LCS {_ratios(estimates, 'lcs', 0)} times, "
        f"full matching {_ratios(estimates, 'matching', 0)} times"
    ]
    for language, name in (("en", "English"), ("zh", "Chinese")):
        key = f"corpus/{language}"
        lines.append(
            f"{name} sentences parsed, matched and counted over the Python definitions: "
            f"{estimates[f'{key}/one_thread'].format()} times with one thread, "
            f"{estimates[f'{key}/all_threads'].format()} with all, "
            f"{estimates[f'{key}/sentences_per_second'].mean:,.0f} sentences per second"
        )
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    series = []
    for name, label in _OPPONENTS.items():
        ratios = [estimates[f"{band.name}/{name}"] for band in _BANDS]
        series.append(
            Series(
                name=label,
                y=tuple(ratio.mean for ratio in ratios),
                spread=tuple(ratio.spread for ratio in ratios),
            )
        )
    published = {
        "N log N LCS, paper": tuple(band.paper_lcs for band in _BANDS),
        "full matching, paper": tuple(band.paper_matching for band in _BANDS),
    }
    paper = [
        Series(name=name, y=y, spread=(0.0,) * len(y), reference=True)
        for name, y in published.items()
    ]
    return (
        Plot(
            title="Speed-up over the textbook's dynamic programme in Python",
            kind="bars",
            x_label="words in the sentence",
            y_label="times faster",
            x=tuple(band.name for band in _BANDS),
            panels=(Panel(title="", series=(*paper, *series)),),
            logarithmic=True,
        ),
    )


CLAIMS = (
    Claim(
        id="matching_speed",
        system="ner",
        statement="The matcher is several times faster than the quadratic dynamic programme.",
        source="GNER, arXiv 2402.16602, table 5",
        paper=(
            "times faster, 0-60 / 60-100 / 100-200 words\n"
            "N log N LCS: 2.9 / 5.5 / 6.1\n"
            "full matching: 3.8 / 12.6 / 17.3"
        ),
        setting=(
            "Generated English text cut to lengths spread evenly over each band, 1 % of the words "
            "damaged with the LLaMA mix; words are lower-cased beforehand. Outputs are compared, "
            "then all matchers take turns in one process: medians of the ratios of each turn. The "
            "ratios depend on how well the baseline is written: it is the textbook's loop, and the "
            "same loop when tuned for speed stands beside it."
        ),
        measure=measure_speed,
        describe=_describe,
        rule=(
            "In each length band the Python definitions are at least as many times faster than "
            "the textbook's dynamic programme in Python as the paper says."
        ),
        expected="reproduced",
        timed=True,
        holds=matching_is_faster,
        describe_speed=_describe_speed,
        plot=_plot,
    ),
)
