"""Training of the default scorer: the same bytes from the same rows, whatever the threads.

1. A fifth of the texts is held out for the report. Distinct texts are put in an order by kind and
   digest, and every fifth is taken: a text that stands there twice is on one side alone, both
   kinds are on both sides, and the order of the rows does not matter.
2. The others are cut into five parts in the same way. Each part is scored by a model of the other
   four, and slope and intercept are fitted on these scores, which no model saw (Platt 1999).
3. The weights are those of a model of all five parts.

Logistic regression with an L2 penalty is minimised by Nesterov's method, whose sums are numpy's
`bincount`: in the order of the rows, without BLAS, whose additions hang on the number of threads.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lmcore.detox.calibration import (
    compute_auroc,
    expected_calibration_error,
    fit_slope,
    to_probabilities,
)
from lmcore.detox.data import read_labelled
from lmcore.detox.ngram_features import hash_texts
from lmcore.detox.ngram_scorer import NgramScorer, add_weights, check_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from lmcore._rows import Progress

TrainingProgress = Callable[[int, int], object]
"""Called with the steps that are made, of all models, and how many there are."""

BITS = 18
PENALTY = 1e-4
STEPS = 200
_PARTS = 5
# Features whose sums are in memory at once.
_BLOCK = 1 << 22
_TOXIC_FROM = 0.5


class _Texts(NamedTuple):
    """Features of texts, and labels."""

    offsets: NDArray[np.int64]
    features: NDArray[np.int32]
    labels: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> _Texts:
        """Some of the texts."""
        import numpy as np

        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return _Texts(offsets, self.features[places], self.labels[rows])


def train_file(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    form: str = "auto",
    field: str | None = None,
    label_field: str | None = None,
    bits: int = BITS,
    penalty: float = PENALTY,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
    training_progress: TrainingProgress | None = None,
) -> tuple[NgramScorer, list[str]]:
    r"""Writes a scorer that was trained on a file, and returns it with the rows left out.

    Args:
        source: labelled texts, as `lmcore.detox.data.read_labelled` reads them.
        out: the folder, empty or of a scorer, which is then replaced.
        form: one of `lmcore.detox.data.LABELLED_FORMS`.
        field: the key or column of the text; `text` if None.
        label_field: that of the label; the one of the usual ones that there is if None.
        bits: the model has `2 ** bits` weights.
        penalty: of the squares of the weights.
        skip_bad_rows: list rows that cannot be used instead of raising.
        progress: called with the bytes of the input read so far.
        training_progress: as for `train_scorer`.

    Raises:
        FileExistsError: the folder holds something else.
        OSError: a file cannot be read or written.
        ValueError: a row cannot be used, or there are too few.

    Example:
        >>> import json, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = [{"text": f"{w} {n}", "label": w == "blap"}
        ...             for n in range(20) for w in ("nice", "blap")]
        ...     with open(f"{folder}/rows.jsonl", "w") as file:
        ...         _ = file.write("\n".join(map(json.dumps, rows)))
        ...     scorer, left_out = train_file(f"{folder}/rows.jsonl", f"{folder}/scorer")
        >>> scorer.report["rows"], scorer.report["auroc"], left_out
        (40, 1.0, [])
    """
    check_folder(out)
    texts, labels, left_out = read_labelled(
        source, form=form, field=field, label_field=label_field, skip_bad_rows=skip_bad_rows,
        progress=progress,
    )  # fmt: skip
    scorer = train_scorer(texts, labels, bits=bits, penalty=penalty, progress=training_progress)
    scorer.save(out, inputs=[] if os.fspath(source) == "-" else [source])
    return scorer, left_out


def train_scorer(
    texts: Sequence[str],
    labels: ArrayLike,
    *,
    bits: int = BITS,
    penalty: float = PENALTY,
    steps: int = STEPS,
    progress: TrainingProgress | None = None,
) -> NgramScorer:
    """Returns a scorer that was trained on texts; its `report` says how well it does.

    Args:
        texts: N texts.
        labels: `[N]` from 0 to 1: 1 is toxic, and what lies between is the share of judges who say
            so, or a score of another scorer.
        bits: the model has `2 ** bits` weights, 1 to 24.
        penalty: of the squares of the weights, above 0.
        steps: of the optimiser at most, 1 or more.
        progress: called with the steps that are made, and how many there are.

    Raises:
        TypeError: a label is no number.
        ValueError: lengths that differ, a label outside of 0 to 1, a setting outside of its range,
            or too few texts: of those that are trained on, each of five parts needs some, and
            there must be toxic and other ones.

    Example:
        >>> texts = [f"{word} {number}" for number in range(20) for word in ("nice", "blap")]
        >>> scorer = train_scorer(texts, [0, 1] * 20)
        >>> scorer.report["held_out_rows"] > 0, scorer.report["auroc"]
        (True, 1.0)
    """
    _check_settings(bits, penalty, steps)
    values = _check_labels(texts, labels)
    import numpy as np

    sides = _choose_sides(texts, values)
    rows = np.flatnonzero(sides >= 0)
    known = _Texts(*hash_texts(texts, bits), values)
    train = known.take(rows)
    _check_classes(train.labels, sides[rows])

    done = 0

    def watch() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, (_PARTS + 1) * steps)

    def fit(texts: _Texts) -> tuple[NDArray[np.float64], float]:
        return _fit(texts, 1 << bits, penalty, steps, watch)

    slope, shift = fit_slope(_cross_score(train, sides[rows], fit), train.labels)
    weights, bias = fit(train)
    scorer = NgramScorer(
        weights=weights.astype(np.float32), slope=slope, intercept=slope * bias + shift, report={}
    )
    held_out = [text for text, side in zip(texts, sides.tolist(), strict=True) if side < 0]
    report = _report(scorer, known.take(np.flatnonzero(sides < 0)), held_out)
    settings = {"rows": len(texts), "penalty": penalty, "train_rows": len(rows)}
    return NgramScorer(
        weights=scorer.weights, slope=slope, intercept=scorer.intercept,
        report={**settings, **report},
    )  # fmt: skip


def _check_settings(bits: int, penalty: float, steps: int) -> None:
    if not 1 <= bits <= 24:
        raise ValueError(f"bits must be from 1 to 24: got {bits}")
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty must be above 0: got {penalty}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1: got {steps}")


def _check_labels(texts: Sequence[str], labels: ArrayLike) -> NDArray[np.float64]:
    import numpy as np

    values = np.asarray(labels)
    if values.dtype.kind not in "biuf" and values.size:
        raise TypeError(f"labels must be numbers: got {values.dtype}")
    if values.shape != (len(texts),):
        raise ValueError(f"labels must be [{len(texts)}] as texts are: got {values.shape}")
    values = values.astype(np.float64)
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if bad.size:
        raise ValueError(f"labels[{bad[0]}] must be from 0 to 1: got {values[bad[0]]}")
    return values


def _choose_sides(texts: Sequence[str], labels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which part of the training each text is in; -1 if it is held out."""
    import numpy as np

    highest: dict[str, float] = {}
    for text, label in zip(texts, labels.tolist(), strict=True):
        highest[text] = max(label, highest.get(text, 0.0))

    def order(text: str) -> tuple[bool, bytes]:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return highest[text] >= _TOXIC_FROM, digest

    places = {text: place for place, text in enumerate(sorted(highest, key=order))}
    # Of each five places the first is held out, and the others take the parts in turn.
    return np.array(
        [(p - p // 5 - 1) % _PARTS if p % 5 else -1 for p in map(places.__getitem__, texts)],
        np.int64,
    )


def _check_classes(labels: NDArray[np.float64], parts: NDArray[np.int64]) -> None:
    import numpy as np

    if len(np.unique(parts)) < _PARTS:
        raise ValueError(
            f"too few texts: {len(labels)} are left to train on, and one of {_PARTS} parts of "
            "them is empty"
        )
    toxic = int((labels >= _TOXIC_FROM).sum())
    if toxic in (0, len(labels)):
        raise ValueError(
            f"{toxic} of {len(labels)} texts to train on are toxic: both kinds are needed"
        )


def _cross_score(
    texts: _Texts,
    parts: NDArray[np.int64],
    fit: Callable[[_Texts], tuple[NDArray[np.float64], float]],
) -> NDArray[np.float64]:
    """The log-odds of each text as a model says them that did not see its part."""
    import numpy as np

    logits = np.zeros(len(texts.labels))
    for part in range(_PARTS):
        weights, bias = fit(texts.take(np.flatnonzero(parts != part)))
        rows = np.flatnonzero(parts == part)
        other = texts.take(rows)
        logits[rows] = add_weights(weights, other.offsets, other.features) + bias
    return logits


def _fit(
    texts: _Texts, size: int, penalty: float, steps: int, watch: Callable[[], None]
) -> tuple[NDArray[np.float64], float]:
    """Weights and bias of least mean cross-entropy and penalty, by Nesterov's method.

    The features of a text have the length 1, and the bias adds 1: the curvature is at most a
    quarter of 2, and of the penalty.
    """
    import numpy as np

    rate = 1 / (0.5 + penalty)
    weights, ahead = np.zeros(size), np.zeros(size)
    bias = bias_ahead = 0.0
    momentum = 1.0
    for _ in range(steps):
        gradient, bias_gradient = _find_gradient(texts, ahead, bias_ahead)
        gradient += penalty * ahead
        new, new_bias = ahead - rate * gradient, bias_ahead - rate * bias_gradient
        next_momentum = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        share = (momentum - 1) / next_momentum
        ahead = new + share * (new - weights)
        bias_ahead = new_bias + share * (new_bias - bias)
        weights, bias, momentum = new, new_bias, next_momentum
        watch()
    return weights, bias


def _find_gradient(
    texts: _Texts, weights: NDArray[np.float64], bias: float
) -> tuple[NDArray[np.float64], float]:
    """The gradient of the mean cross-entropy, block by block."""
    import numpy as np

    total, bias_total = np.zeros(len(weights)), 0.0
    count, start = len(texts.labels), 0
    while start < count:
        limit = texts.offsets[start] + _BLOCK
        end = max(start + 1, int(np.searchsorted(texts.offsets, limit, side="right")) - 1)
        offsets = texts.offsets[start : end + 1] - texts.offsets[start]
        features = texts.features[texts.offsets[start] : texts.offsets[end]]
        logits = add_weights(weights, offsets, features) + bias
        errors = (to_probabilities(logits) - texts.labels[start:end]) / count
        counts = np.diff(offsets)
        scaled = np.repeat(errors / np.sqrt(np.maximum(counts, 1)), counts)
        total += np.bincount(features, scaled, len(weights))
        bias_total += float(errors.sum())
        start = end
    return total, bias_total


def _report(scorer: NgramScorer, held: _Texts, texts: Sequence[str]) -> dict[str, Any]:
    """How well the scorer does on the texts that were held out."""
    report: dict[str, Any] = {"held_out_rows": len(texts), "auroc": None}
    if not texts:
        return {**report, "held_out_toxic_rows": 0, "expected_calibration_error": None}
    scores, is_toxic = scorer(texts), held.labels >= _TOXIC_FROM
    return {
        **report,
        "held_out_toxic_rows": int(is_toxic.sum()),
        "auroc": compute_auroc(scores, is_toxic),
        "expected_calibration_error": expected_calibration_error(scores, held.labels),
    }
