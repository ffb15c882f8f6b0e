"""Longest common subsequence against the authors' routine and rapidfuzz.

Run with `--full` to include the authors' routine on 50,000 words: minutes and gigabytes.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
from rapidfuzz.distance import LCSseq

import authors
import inputs
from lmcore.ops.lcs import longest_common_subsequence
from timing import RESULTS, compare, is_full, measure_peak, print_conditions, save


def main() -> None:
    """Runs all cases."""
    print_conditions()
    rows = []
    for words, rounds in ((2_000, 7), (10_000, 3), *(((50_000, 1),) if is_full() else ())):
        a, b = inputs.document(words, 0.02)
        a_ids, b_ids = _number(a, b)
        alignment = authors.align_fast(a, b)
        assert longest_common_subsequence(a, b).tolist() == alignment
        assert longest_common_subsequence(a_ids, b_ids).tolist() == alignment
        case = f"{words} words, 2 % noise"
        goal = "10000" if words == 50_000 else ""
        rows += compare(
            "lcs",
            case,
            ("authors", lambda a=a, b=b: authors.align_fast(a, b)),
            ("strings", lambda a=a, b=b: longest_common_subsequence(a, b), goal),
            ("integers", lambda a=a_ids, b=b_ids: longest_common_subsequence(a, b), goal),
            rounds=rounds,
        )
    for words in (2_000, 10_000, 50_000):
        a, b = inputs.document(words, 0.02)
        assert LCSseq.similarity(a, b) == np.count_nonzero(longest_common_subsequence(a, b) >= 0)
        rows += compare(
            "lcs",
            f"{words} words, 2 % noise",
            ("rapidfuzz opcodes (other ties)", lambda a=a, b=b: LCSseq.opcodes(a, b)),
            ("strings", lambda a=a, b=b: longest_common_subsequence(a, b), ""),
            rounds=3,
        )

    equal = ["word"] * 2_000
    shorter = equal[:-1]
    ids, shorter_ids = np.zeros(2_000, np.int64), np.zeros(1_999, np.int64)
    assert longest_common_subsequence(equal, shorter).tolist() == authors.align_fast(equal, shorter)
    rows += compare(
        "lcs",
        "2000 equal words against 1999",
        ("authors", lambda: authors.align_fast(equal, shorter)),
        ("strings", lambda: longest_common_subsequence(equal, shorter), "40000"),
        ("integers", lambda: longest_common_subsequence(ids, shorter_ids), "40000"),
        rounds=3,
        repeats=51,
    )
    save("lcs", rows)
    _report_memory()
    _plot_growth()


def _report_memory() -> None:
    """Prints how much memory the largest document adds to a process, in a process of its own."""
    for words, noise in ((50_000, 0.02), (50_000, 1.0), (200_000, 0.02)):
        done = subprocess.run(
            [sys.executable, __file__, "--memory", str(words), str(noise)],
            capture_output=True,
            text=True,
            check=True,
        )
        print(f"{words} words, {noise:.0%} noise: {done.stdout.strip()} MB", flush=True)


def _print_memory(words: int, noise: float) -> None:
    a, b = inputs.document(words, noise)
    a_ids, b_ids = _number(a, b)
    if noise == 1.0:  # two symbols without order: the widest band there is
        a_ids, b_ids = (np.random.default_rng(s).integers(0, 2, words) for s in (1, 2))
    print(measure_peak(lambda: longest_common_subsequence(a_ids, b_ids)))


def _plot_growth() -> None:
    """Draws time against length at three rates of noise."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    sizes = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for noise in (0.0, 0.02, 0.2):
        times = []
        for size in sizes:
            a, b = _number(*inputs.document(size, noise))
            taken = []
            for _ in range(5):
                start = time.perf_counter()
                longest_common_subsequence(a, b)
                taken.append((time.perf_counter() - start) * 1e3)
            times.append(sorted(taken)[2])
        print(f"growth, {noise:.0%} noise: " + ", ".join(f"{time:.3g}" for time in times), "ms")
        axes.loglog(sizes, times, marker="o", label=f"{noise:.0%} of the words damaged")
    small, large = sizes[0], sizes[-1]
    axes.loglog([small, large], [2e-2, 2e-2 * large / small], "k:", lw=1, label="n")
    axes.loglog([small, large], [2e-2, 2e-2 * (large / small) ** 2], "k--", lw=1, label="n²")
    axes.set(xlabel="words", ylabel="milliseconds", title="Longest common subsequence, one thread")
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(RESULTS / "lcs_growth.svg", metadata={"Date": None})


def _number(a: list[str], b: list[str]) -> tuple[np.ndarray, np.ndarray]:
    numbers = {word: number for number, word in enumerate(dict.fromkeys([*a, *b]))}
    return np.array([numbers[w] for w in a]), np.array([numbers[w] for w in b])


if __name__ == "__main__":
    if "--memory" in sys.argv:
        _print_memory(int(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
