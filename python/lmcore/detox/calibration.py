"""How well scores rank, and how far they can be read as probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BINS = 15
_STEPS = 100


def compute_auroc(scores: NDArray[np.float64], is_toxic: NDArray[np.bool_]) -> float | None:
    """Returns the chance that a toxic text scores higher than another; None without both kinds.

    Equal scores count half: the area under the ROC curve is Mann and Whitney's U.

    Args:
        scores: `[N]` float64.
        is_toxic: `[N]` bool.

    Example:
        >>> import numpy as np
        >>> compute_auroc(np.array([0.9, 0.4, 0.4]), np.array([True, True, False]))
        0.75
    """
    import numpy as np

    positives = int(is_toxic.sum())
    negatives = len(is_toxic) - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # The mean of the ranks that equal scores share, from 1.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    above = float(ranks[is_toxic].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def expected_calibration_error(
    scores: NDArray[np.float64], labels: NDArray[np.float64], *, bins: int = _BINS
) -> float:
    """Returns by how much mean scores and mean labels differ, over bins of equal width.

    Source: Naeini et al. (AAAI 2015), for the probability of one class.

    Args:
        scores: `[N]` float64 from 0 to 1, one at least.
        labels: `[N]` float64 from 0 to 1.
        bins: how many.

    Example:
        >>> import numpy as np
        >>> expected_calibration_error(np.array([0.2, 0.2, 0.9, 0.9]), np.array([0.0, 0, 1, 0]))
        0.3
    """
    import numpy as np

    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    gaps = np.abs(np.bincount(place, scores - labels, bins))
    return float(f"{gaps.sum() / len(scores):.12g}")


def fit_slope(logits: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[float, float]:
    """Returns slope and intercept that make probabilities of logits.

    Newton's method on the cross-entropy, with labels drawn a little to the middle so that logits
    which part the classes without a fault do not drive the slope to infinity.

    Source: Platt (1999); Lin, Lin and Weng (2007) for the target values and the step.

    Args:
        logits: `[N]` float64, of texts that the model was not fitted on.
        labels: `[N]` float64 from 0 to 1.

    Example:
        >>> import numpy as np
        >>> slope, intercept = fit_slope(np.array([-1.0, 1.0] * 50), np.array([0.2, 0.8] * 50))
        >>> round(slope, 1), abs(round(intercept, 1))
        (1.3, 0.0)
    """
    positive = float(labels.sum())
    negative = len(labels) - positive
    high, low = (positive + 1) / (positive + 2), 1 / (negative + 2)
    targets = low + labels * (high - low)
    slope, intercept = 1.0, 0.0
    loss = _cross_entropy(slope * logits + intercept, targets)
    for _ in range(_STEPS):
        shares = to_probabilities(slope * logits + intercept)
        # Plain sums: a product of matrices may add in another order with more threads.
        errors, curves = shares - targets, shares * (1 - shares)
        gradient = float((errors * logits).sum()), float(errors.sum())
        step = _solve(
            float((curves * logits * logits).sum()) + 1e-9,
            float((curves * logits).sum()),
            float(curves.sum()) + 1e-9,
            gradient,
        )
        downhill = gradient[0] * step[0] + gradient[1] * step[1]
        size = 1.0
        while size > 1e-10:
            tried = slope - size * step[0], intercept - size * step[1]
            next_loss = _cross_entropy(tried[0] * logits + tried[1], targets)
            if next_loss < loss - 1e-4 * size * downhill:
                break
            size /= 2
        else:
            break
        (slope, intercept), loss = tried, next_loss
    # A slope below zero would turn the order of texts around.
    return max(slope, 1e-3), intercept


def to_probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the logistic function of logits.

    Args:
        logits: float64 of any shape.

    Example:
        >>> import numpy as np
        >>> to_probabilities(np.array([0.0, -1000.0])).tolist()
        [0.5, 0.0]
    """
    import numpy as np

    small = np.exp(-np.abs(logits))  # at most 1: nothing overflows
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def _cross_entropy(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    import numpy as np

    return float((np.logaddexp(0, logits) - targets * logits).sum())


def _solve(a: float, b: float, c: float, right: tuple[float, float]) -> tuple[float, float]:
    """Returns x with [[a, b], [b, c]] x = right."""
    determinant = max(a * c - b * b, 1e-300)
    return (c * right[0] - b * right[1]) / determinant, (a * right[1] - b * right[0]) / determinant
