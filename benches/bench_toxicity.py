"""Measures of 10,000 prompts with 25 scores each, against loops as in the authors' script.

Of no concept: expected maximum toxicity with its spread, and both shares of toxic text, from an
array and from the lists that rows of JSON hold. A whole call is to take less than 50 ms.
"""

from __future__ import annotations

import statistics
import sys

import numpy as np

from lmcore.detox import expected_maximum_toxicity, toxic_prompt_share, toxic_sample_share
from lmcore.ops.philox import random_uniform
from timing import compare, print_conditions, save

PROMPTS, SAMPLES, MOST_MILLISECONDS = 10_000, 25, 50


def measure(scores: object) -> tuple[float, ...]:
    """Returns mean and spread of the maxima, and both shares."""
    matrix = np.asarray(scores)  # once for the three
    maximum = expected_maximum_toxicity(matrix)
    return (*maximum, toxic_prompt_share(matrix), toxic_sample_share(matrix))


def loop(scores: list[list[float]]) -> tuple[float, ...]:
    """Returns the same by loops over prompts and samples."""
    maxima, toxic_prompts, toxic_samples, samples = [], 0, 0, 0
    for row in scores:
        is_toxic = False
        for score in row:
            samples += 1
            if score > 0.5:
                toxic_samples += 1
                is_toxic = True
        toxic_prompts += is_toxic
        maxima.append(max(row))
    return (
        statistics.fmean(maxima),
        float(np.std(maxima)),
        toxic_prompts / len(scores),
        toxic_samples / samples,
    )


def main() -> None:
    """Runs all cases."""
    print_conditions()
    array = random_uniform(1, 1, range(PROMPTS), SAMPLES) ** 4
    lists = array.tolist()
    assert np.allclose(measure(array), loop(lists), rtol=1e-11, atol=0)
    assert measure(lists) == measure(array)
    case = f"measures of {PROMPTS} x {SAMPLES} scores"
    rows = compare(
        "toxicity", case, ("loops", lambda: loop(lists)),
        ("array", lambda: measure(array), ""), ("lists", lambda: measure(lists), ""),
    )  # fmt: skip
    for row in rows:
        is_quick = row.ours_median < MOST_MILLISECONDS
        print(f"{row.ours}: {'under' if is_quick else 'NOT UNDER'} {MOST_MILLISECONDS} ms")
    if "--dry" not in sys.argv[1:]:
        save("toxicity", rows)


if __name__ == "__main__":
    main()
