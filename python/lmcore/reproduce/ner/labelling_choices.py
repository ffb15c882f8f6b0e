"""Claims: choices around the targets and the decoding, each with all else equal.

One model copies, and four go on from it: BIO, BIOES and IO labels, and BIO with types that stand
in one order in every instruction. The model with BIO labels is decoded in several ways.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Size
from lmcore.reproduce.ner.labelling import (
    SCALES,
    Labeller,
    Scale,
    Style,
    find_outcome,
    make_tests,
    train_arms,
)
from lmcore.worlds.ner.sentences import Sentence

if TYPE_CHECKING:
    from lmcore.ner.generation import Answer

_STYLES: Mapping[str, Style] = {
    "bio": Style(),
    "bioes": Style(boundaries="bioes"),
    "io": Style(boundaries="io"),
    "ordered": Style(shuffles=False),
}
_JOINED = 3  # sentences of a long text
_WINDOW, _OVERLAP = 14, 6  # words


def measure(name: str, seed: int, size: Size) -> Measurement:
    """Returns the numbers of one of the claims.

    Args:
        name: the claim's.
        seed: of the world and of training.
        size: of the model, and how many steps.
    """
    values = run_choices(seed, SCALES[size])
    chosen = {k.removeprefix(f"{name}/"): v for k, v in values.items() if k.startswith(f"{name}/")}
    return Measurement(values=chosen)


@functools.cache
def run_choices(seed: int, scale: Scale) -> dict[str, float]:
    """Returns the numbers of all claims of this module, in percent, named `<claim>/<number>`.

    Args:
        seed: of the world and of training.
        scale: how large.
    """
    seen = make_tests(seed, scale)["seen"]

    def score(arm: str, run: Labeller, step: int) -> dict[str, float]:
        if not step:
            return {}
        found = {"f1": _f1(seen, run.annotate(seen))}
        if arm in ("bio", "ordered"):
            turned = [replace(s, label_list=s.label_list[::-1]) for s in seen]
            found["turned"] = _f1(turned, run.annotate(turned))
        if arm == "bio":
            found |= _decode(run, seen)
        return found

    arms = train_arms(seed, scale, _STYLES, score)
    bio, ordered = arms["bio"], arms["ordered"]
    values = {f"labelling_boundaries/{arm}": arms[arm]["f1"] for arm in ("bio", "bioes", "io")}
    for other in ("bioes", "io"):
        values[f"labelling_boundaries/gain_over_{other}"] = bio["f1"] - arms[other]["f1"]
    values |= {
        "labelling_order/shuffled": bio["f1"],
        "labelling_order/shuffled_turned": bio["turned"],
        "labelling_order/ordered": ordered["f1"],
        "labelling_order/ordered_turned": ordered["turned"],
        "labelling_order/gain_turned": bio["turned"] - ordered["turned"],
    }
    for claim in ("labelling_constrained", "labelling_beams"):
        values[f"{claim}/greedy"] = bio["f1"]
        values[f"{claim}/other"] = bio[claim]
        values[f"{claim}/gain"] = bio[claim] - bio["f1"]
    for name in ("whole", "windows", "overlap"):
        values[f"labelling_windows/{name}"] = bio[name]
    values["labelling_windows/gain"] = bio["overlap"] - bio["windows"]
    for way in ("free", "constrained"):
        for name in ("error", "confidence", "accuracy"):
            values[f"labelling_confidence/{way}_{name}"] = bio[f"{way}_{name}"]
    return values


def _decode(run: Labeller, seen: Sequence[Sentence]) -> dict[str, float]:
    """The model's answers in other ways than greedily, and to texts that are too long for it."""
    constrained = run.annotate(seen, constrained=True)
    found = {
        "labelling_constrained": _f1(seen, constrained),
        "labelling_beams": _f1(seen, run.annotate(seen, num_beams=4)),
    }
    for way, answers in (("free", run.annotate(seen)), ("constrained", constrained)):
        found |= {f"{way}_{name}": value for name, value in _calibrate(seen, answers).items()}
    texts = [_join(seen[first : first + _JOINED]) for first in range(0, len(seen), _JOINED)]
    found["whole"] = _f1(texts, run.annotate(texts))
    for name, overlap in (("windows", 0), ("overlap", _OVERLAP)):
        found[name] = _f1_of_labels(texts, _annotate_windows(run, texts, overlap))
    return found


def _calibrate(sentences: Sequence[Sentence], answers: Sequence[Answer]) -> dict[str, float]:
    """How far confidences are from the share of entities that are right."""
    from lmcore.ner.confidence import measure_calibration, rate_entities
    from lmcore.ops.entities import decode_spans

    confidences: list[float] = []
    is_right: list[bool] = []
    for sentence, answer in zip(sentences, answers, strict=True):
        gold = set(decode_spans(sentence.labels))
        confidences += rate_entities(answer.labels, answer.probabilities)
        is_right += [span in gold for span in decode_spans(answer.labels)]
    count = max(len(is_right), 1)
    return {
        "error": 100 * measure_calibration(confidences, is_right).error,
        "confidence": 100 * sum(confidences) / count,
        "accuracy": 100 * sum(is_right) / count,
    }


def _join(sentences: Sequence[Sentence]) -> Sentence:
    """One text of several sentences; it is asked for the types of the first, as are they."""
    types = sentences[0].label_list
    words = [word for sentence in sentences for word in sentence.words]
    labels = [
        label if label[2:] in types else "O" for sentence in sentences for label in sentence.labels
    ]
    return Sentence("joined", tuple(words), tuple(labels), types)


def _annotate_windows(run: Labeller, texts: Sequence[Sentence], overlap: int) -> list[list[str]]:
    """The labels of texts that are cut into windows, each annotated by itself, and joined."""
    from lmcore.ner.merging import join_labels
    from lmcore.ner.windows import cut_windows

    cuts = [cut_windows(len(text.words), _WINDOW, overlap) for text in texts]
    parts = [
        Sentence(text.dataset, text.words[start:stop], text.labels[start:stop], text.label_list)
        for text, windows in zip(texts, cuts, strict=True)
        for start, stop in windows
    ]
    answers = iter(run.annotate(parts))
    return [join_labels([(start, next(answers).labels) for start, _ in w]) for w in cuts]


def _f1(sentences: Sequence[Sentence], answers: Sequence[Answer]) -> float:
    from lmcore.ner.labels import generation_as_bio

    texts = [generation_as_bio(answer.text) for answer in answers]
    return 100 * find_outcome(sentences, texts).f1


def _f1_of_labels(sentences: Sequence[Sentence], labels: Sequence[Sequence[str]]) -> float:
    from lmcore.ner.instructions import write_target

    texts = [write_target(s.words, own) for s, own in zip(sentences, labels, strict=True)]
    return 100 * find_outcome(sentences, texts).f1


def _exceeds(gain: str) -> Callable[[Estimates], bool]:
    """Whether a difference is more than twice its spread."""
    return lambda estimates: estimates[gain].mean > 2 * estimates[gain].spread


def _tell(
    lines: Sequence[tuple[str, str]], gains: Sequence[tuple[str, str]] = ()
) -> Callable[[Estimates], str]:
    """What describes estimates: numbers by name, then differences, which have signs."""

    def describe(estimates: Estimates) -> str:
        told = [f"{text}: {estimates[name].format()}" for name, text in lines]
        told += [f"{text}: {estimates[name].format(sign=True)}" for name, text in gains]
        return "\n".join(told)

    return describe


_SETTING = (
    "A T5-shaped model of some 170,000 weights that learned to copy first, as in the claim "
    "negative_instances; seven generated domains, scored on new sentences of them. "
)


def _claim(
    name: str,
    statement: str,
    source: str,
    paper: str,
    setting: str,
    describe: Callable[[Estimates], str],
    gain: str | None,
    expected: str,
) -> Claim:
    rule = "Nothing is judged: the paper makes no claim about it."
    if gain is not None:
        rule = "The difference exceeds twice its spread."
    return Claim(
        id=name,
        system="ner",
        statement=statement,
        source=source,
        paper=paper,
        setting=_SETTING + setting,
        measure=functools.partial(measure, name),
        describe=describe,
        rule=rule,
        expected=expected,  # type: ignore[arg-type]
        sizes=("tiny", "full"),
        group="labelling_choices",
        holds=None if gain is None else _exceeds(gain),
    )


_GNER = "GNER, arXiv 2402.16602, "
CLAIMS = (
    _claim(
        "labelling_boundaries",
        "BIO labels are better than BIOES labels.",
        _GNER + "table 1",
        "F1 (%), Flan-T5-large, zero-shot: BIO 61.8, BIOES 61.2, types alone 61.0",
        "IO labels say the type alone, and cannot tell two entities of one type that touch; there "
        "are none here.",
        _tell(
            [("bio", "F1 (%) with BIO"), ("bioes", "with BIOES"), ("io", "with IO")],
            [("gain_over_bioes", "BIO minus BIOES"), ("gain_over_io", "BIO minus IO")],
        ),
        "gain_over_bioes",
        "not reproduced",
    ),
    _claim(
        "labelling_order",
        "A model that saw types in any order does not depend on it.",
        _GNER + "section 4.2, without a number",
        "none",
        "Types are named in one order, or in another one in each instruction, in training; in the "
        "test in that order and in its reverse.",
        _tell(
            [
                ("shuffled", "F1 (%), shuffled, known order"),
                ("shuffled_turned", "reversed"),
                ("ordered", "not shuffled, known order"),
                ("ordered_turned", "reversed"),
            ],
            [("gain_turned", "shuffled minus not, reversed")],
        ),
        "gain_turned",
        "not reproduced",
    ),
    _claim(
        "labelling_constrained",
        "Holding the decoder to the words and to legal labels raises F1.",
        "beyond the paper, which repairs what was generated",
        "none",
        "Greedy, free and constrained, of the same model.",
        _tell(
            [("greedy", "F1 (%), free"), ("other", "constrained")],
            [("gain", "constrained minus free")],
        ),
        None,
        "measured",
    ),
    _claim(
        "labelling_beams",
        "Four beams are better than greedy decoding.",
        _GNER + "table 7",
        "F1 (%), zero-shot, 1 to 4 beams: base 59.46 to 60.44, large 63.47 to 64.31",
        "The same model, free.",
        _tell(
            [("greedy", "F1 (%), greedy"), ("other", "4 beams")], [("gain", "beams minus greedy")]
        ),
        "gain",
        "not reproduced",
    ),
    _claim(
        "labelling_windows",
        "Windows of a long text need to overlap.",
        "beyond the paper, which cuts long texts off",
        "none",
        f"Texts of {_JOINED} sentences, longer than any in training: whole, in windows of "
        f"{_WINDOW} words, and in such windows that share {_OVERLAP} words.",
        _tell(
            [
                ("whole", "F1 (%), whole"),
                ("windows", "windows without overlap"),
                ("overlap", "with overlap"),
            ],
            [("gain", "with overlap minus without")],
        ),
        None,
        "measured",
    ),
    _claim(
        "labelling_confidence",
        "How far the confidence of entities is from the share that is right.",
        "beyond the paper, which has no confidence",
        "none",
        "The expected calibration error over ten bins; beside it the mean confidence and the share "
        "that is right.",
        _tell(
            [
                ("free_error", "calibration error (%), free"),
                ("free_confidence", "mean confidence"),
                ("free_accuracy", "right"),
                ("constrained_error", "calibration error, constrained"),
                ("constrained_confidence", "mean confidence"),
                ("constrained_accuracy", "right"),
            ]
        ),
        None,
        "measured",
    ),
)
