"""Scoring of tag sequences against seqeval and nervaluate."""

from __future__ import annotations

import warnings

from nervaluate import Evaluator
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as conll_scores
from seqeval.metrics.v1 import precision_recall_fscore_support as strict_scores
from seqeval.scheme import IOB2

import inputs
from lmcore.ops.entities import compute_quality, count_entities_batch
from timing import compare, print_conditions, save


def main() -> None:
    """Runs all cases."""
    print_conditions()
    gold, predicted = inputs.tag_sequences()
    types = sorted({label[2:] for labels in gold for label in labels if label != "O"})

    def seqeval(strict: bool) -> tuple[float, float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = (
                strict_scores(gold, predicted, average="micro", scheme=IOB2)
                if strict
                else conll_scores(gold, predicted, average="micro")
            )
        precision, recall, f1, _ = scores
        return precision, recall, f1

    def ours(scheme: str, threads: int) -> tuple[float, float, float]:
        counts, _ = count_entities_batch(gold, predicted, scheme=scheme, threads=threads)
        precision, recall, f1 = compute_quality(counts, scheme)
        return precision, recall, f1

    for scheme in ("conll", "iob2"):
        pairs = zip(ours(scheme, 1), seqeval(scheme == "iob2"), strict=True)
        assert all(abs(mine - theirs) < 1e-12 for mine, theirs in pairs)
    name = f"{len(gold)} tag sequences"
    rows = compare(
        "entities",
        name,
        ("seqeval", lambda: seqeval(False)),
        ("conll, 1 thread", lambda: ours("conll", 1), "30"),
        ("conll, 2 threads", lambda: ours("conll", 2), "30"),
    )
    rows += compare(
        "entities",
        name,
        ("seqeval strict IOB2", lambda: seqeval(True)),
        ("iob2, 1 thread", lambda: ours("iob2", 1), "30"),
        rounds=3,
    )

    def nervaluate() -> dict:
        return Evaluator(gold, predicted, tags=types, loader="list").evaluate()

    overall = nervaluate()["overall"]["strict"]
    assert abs(overall.f1 - ours("strict", 1)[2]) < 1e-12
    rows += compare(
        "entities",
        name,
        ("nervaluate", nervaluate),
        ("strict, 1 thread", lambda: ours("strict", 1), ""),
        rounds=3,
    )
    save("entities", rows)


if __name__ == "__main__":
    main()
