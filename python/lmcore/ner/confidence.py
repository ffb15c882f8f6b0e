"""How sure a model is of an entity: from the probabilities of the tokens of its labels.

A label is generated as tokens, `B`, `-`, `person`, `)`. Its probability is the product of the
probabilities of those tokens, each given all that stands before: from the label's first character
to the bracket that ends it, which tells `per` from `person`. **The confidence of an entity is the
product of the probabilities of its words' labels.** Without constraints the probabilities are over
the whole vocabulary, with constraints over the legal tokens, so a forced token counts 1. The words
themselves do not count: a model may be sure of a label and unsure of how to write its word.

A confidence is calibrated where of the entities with confidence 0.8 eighty in a hundred are right:
`measure_calibration` says how far a model is from that.

Source: the expected calibration error is that of Naeini et al. 2015 and Guo et al. 2017 (arXiv
1706.04599); the rest is ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmcore.ops.entities import decode_spans

# The pattern of `lmcore.ops.matching.parse_generation`, which says no places.
_LABEL = re.compile(r"\((B-.*?|I-.*?|O)\)")


@dataclass(kw_only=True, slots=True, frozen=True)
class CalibrationBin:
    """Entities of about the same confidence."""

    count: int
    confidence: float
    """Their mean confidence."""
    accuracy: float
    """The share of them that is right."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Calibration:
    """How far confidences are from the shares that are right."""

    error: float
    """The expected calibration error: the mean distance over all entities, in [0, 1]."""
    count: int
    bins: tuple[CalibrationBin, ...]
    """Those that hold entities, of ascending confidence."""


def measure_calibration(
    confidences: Sequence[float], is_right: Sequence[bool], *, bins: int = 10
) -> Calibration:
    """Returns how far confidences are from the shares of entities that are right.

    The confidences fall into bins of equal width; a bin holds its upper end, the first one 0 too.

    Source: Guo et al. 2017 (arXiv 1706.04599), section 2, the expected calibration error.

    Args:
        confidences: `[entities]`, each in [0, 1].
        is_right: `[entities]`, whether each is among the gold entities.
        bins: how many.

    Raises:
        ValueError: the lengths differ, a confidence is not in [0, 1], or there is no bin.

    Example:
        >>> calibration = measure_calibration([0.9, 0.9, 0.4], [True, False, False])
        >>> round(calibration.error, 3), [part.count for part in calibration.bins]
        (0.4, [1, 2])
    """
    values = np.asarray(confidences, dtype=np.float64)
    right = np.asarray(is_right, dtype=np.bool_)
    if values.shape != right.shape or values.ndim != 1:
        raise ValueError(
            "confidences and is_right must have the same length: "
            f"got {len(confidences)} and {len(is_right)}"
        )
    if bins < 1:
        raise ValueError(f"bins must be at least 1: got {bins}")
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(f"confidences[{index}] must be in [0, 1]: got {values[index]}")
    if not len(values):
        return Calibration(error=0.0, count=0, bins=())
    numbers: NDArray[np.int64] = np.ceil(values * bins).astype(np.int64).clip(1, bins)
    found = []
    for number in np.unique(numbers):
        inside = numbers == number
        found.append(
            CalibrationBin(
                count=int(inside.sum()),
                confidence=float(values[inside].mean()),
                accuracy=float(right[inside].mean()),
            )
        )
    total = sum(part.count * abs(part.confidence - part.accuracy) for part in found)
    return Calibration(error=total / len(values), count=len(values), bins=tuple(found))


def rate_entities(labels: Sequence[str], probabilities: Sequence[float]) -> list[float]:
    """Returns the confidence of each entity that labels spell, in order.

    Args:
        labels: n BIO labels.
        probabilities: of each of them.

    Raises:
        ValueError: the lengths differ, or a label has another form.

    Example:
        >>> rate_entities(["B-x", "I-x", "O", "B-y"], [0.5, 0.5, 0.9, 0.75])
        [0.25, 0.75]
    """
    if len(labels) != len(probabilities):
        raise ValueError(
            "labels and probabilities must have the same length: "
            f"got {len(labels)} and {len(probabilities)}"
        )
    return [math.prod(probabilities[span.start : span.end]) for span in decode_spans(labels)]


def rate_labels(
    text: str, starts: Sequence[int], log_probabilities: Sequence[float]
) -> list[float]:
    """Returns the probability of the label of each generated word, as `parse_generation` has them.

    Args:
        text: what was generated.
        starts: where in the text each token begins, and where the last one ends.
        log_probabilities: of each token.

    Raises:
        ValueError: there is not one place more than there are probabilities.

    Example:
        >>> rate_labels("Ada(O)", [0, 3, 4, 5, 6], [-9.0, -9.0, math.log(0.5), 0.0])
        [0.5]
    """
    if len(starts) != len(log_probabilities) + 1:
        raise ValueError(
            "starts must be one more than log_probabilities: "
            f"got {len(starts)} and {len(log_probabilities)}"
        )
    found: list[float] = []
    end, token = 0, 0
    for match in _LABEL.finditer(text):
        if text[end : match.start()].strip():
            # From behind the opening bracket to the closing one: the tokens that touch it.
            while token + 1 < len(starts) and starts[token + 1] <= match.start() + 1:
                token += 1
            last = token
            while last < len(log_probabilities) and starts[last] < match.end():
                last += 1
            found.append(math.exp(min(0.0, math.fsum(log_probabilities[token:last]))))
        end = match.end()
    return found
