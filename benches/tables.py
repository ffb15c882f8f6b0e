"""Writes the speed tables of README.md and docs/speed.md from the rows in `results/`.

The documents name one device; another device's rows stand in a file of their own and do not
change them.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEVICE = "intel-r-xeon-r-processor-2-cores"
AUTHORS_LOOP = "authors' loop: 10,000 users, as theirs takes at most, 101 candidates"
SPARSE = "128 x 50 x 100, sparse, 52000 users x 57000 items"


@dataclass(kw_only=True, slots=True, frozen=True)
class Finding:
    """A row of the table in docs/speed.md; one with `short` has a row in README.md as well."""

    key: tuple[str, str, str, str]
    """Concept, case, opponent and ours of a row in the results."""
    label: str
    against: str
    short: str | None = None


FINDINGS = [
    Finding(
        key=("predictions", "10000 sentences, noisy, lists", "authors", "1 thread"),
        label="Whole evaluation of 10,000 noisy sentences, lists, 1 thread",
        against="the authors' evaluator",
        short="Scoring 10,000 generated sentences, 1 thread",
    ),
    Finding(
        key=("predictions", "10000 sentences, noisy, lists", "authors", "2 threads"),
        label="the same, 2 threads",
        against="the authors' evaluator",
    ),
    Finding(
        key=("predictions", "10000 sentences, noisy, JSONL file", "authors", "2 threads"),
        label="the same from a JSONL file, reading included, 2 threads",
        against="the authors' evaluator",
    ),
    Finding(
        key=("predictions", "1000 sentences with back tokenisation", "authors", "first call"),
        label="1,000 sentences with back tokenisation, first call",
        against="the authors' evaluator",
    ),
    Finding(
        key=("entities", "10000 tag sequences", "seqeval", "conll, 1 thread"),
        label="10,000 tag sequences, `conll`, 1 thread",
        against="seqeval",
        short="Scoring 10,000 sequences of BIO labels, 1 thread",
    ),
    Finding(
        key=("entities", "10000 tag sequences", "seqeval", "conll, 2 threads"),
        label="the same, 2 threads",
        against="seqeval",
    ),
    Finding(
        key=("entities", "10000 tag sequences", "seqeval strict IOB2", "iob2, 1 thread"),
        label="10,000 tag sequences, `iob2`, 1 thread",
        against="seqeval strict IOB2",
    ),
    Finding(
        key=("entities", "10000 tag sequences", "nervaluate", "strict, 1 thread"),
        label="10,000 tag sequences, `strict`, 1 thread",
        against="nervaluate",
    ),
    Finding(
        key=("lcs", "10000 words, 2 % noise", "authors", "strings"),
        label="LCS of 10,000 words, 2 % noise, strings",
        against="the authors' routine",
        short="Longest common subsequence of two texts of 10,000 words",
    ),
    Finding(
        key=("lcs", "50000 words, 2 % noise", "authors", "strings"),
        label="LCS of 50,000 words, 2 % noise, strings (one run)",
        against="the authors' routine",
    ),
    Finding(
        key=("lcs", "50000 words, 2 % noise", "authors", "integers"),
        label="the same, integers (one run)",
        against="the authors' routine",
    ),
    Finding(
        key=("lcs", "50000 words, 2 % noise", "rapidfuzz opcodes (other ties)", "strings"),
        label="LCS of 50,000 words, 2 % noise, strings",
        against="rapidfuzz, which takes other alignments",
    ),
    Finding(
        key=("lcs", "2000 equal words against 1999", "authors", "strings"),
        label="LCS of 2,000 equal words, strings",
        against="the authors' routine",
    ),
    Finding(
        key=("matching", "2000 sentences, noisy", "authors, labels only", "1 thread, full report"),
        label="`match_labels_batch`, 2,000 noisy sentences, full report as Python objects",
        against="the authors' steps, labels alone",
    ),
    Finding(
        key=(
            "philox",
            "1000000 doubles in [0, 1)",
            "numpy Philox, one stream",
            "lmcore, 1000 items",
        ),
        label="1,000,000 doubles, 1,000 items",
        against="numpy's Philox, one stream",
        short="Drawing 1,000,000 random numbers, each a function of its place",
    ),
    Finding(
        key=("negatives", SPARSE, "authors", "lmcore, padded, same arrays"),
        label="Batch of 128 x 50 x 100 negatives, 52,000 users x 57,000 items, padded, "
        "arrays used again",
        against="the authors' sampler",
        short="Drawing a batch of 128 x 50 x 100 negatives",
    ),
    Finding(
        key=("negatives", SPARSE, "authors", "lmcore, packed"),
        label="the same, packed positions",
        against="the authors' sampler",
    ),
    Finding(
        key=("negatives", SPARSE, "RecBole, negatives only", "lmcore, packed"),
        label="the same, packed positions, negatives alone",
        against="RecBole's algorithm",
    ),
    Finding(
        key=(
            "negatives",
            "128 x 50 x 100, dense, 6040 users x 3416 items",
            "authors",
            "lmcore, packed",
        ),
        label="the same for 6,040 users x 3,416 items, packed",
        against="the authors' sampler",
    ),
    Finding(
        key=(
            "false_negatives",
            "sparse, 586 positions: next batch: inject + labels + observe",
            "authors",
            "lmcore, packed",
        ),
        label="False-negative memory, inject and observe, 586 positions, next batch",
        against="the authors' dictionaries",
        short="Remembering the hard negatives of a batch",
    ),
    Finding(
        key=(
            "false_negatives",
            "sparse, 586 positions: next batch: inject + labels + observe",
            "numba",
            "lmcore, packed",
        ),
        label="the same",
        against="numba",
    ),
    Finding(
        key=(
            "training_step",
            "UFNRec, Beauty 5-core, 128 x 50 x 100, 1 thread",
            "authors",
            "lmcore",
        ),
        label="Whole UFNRec training step, Beauty, 1 thread",
        against="the authors' step",
        short="A whole UFNRec training step on Beauty, 1 thread",
    ),
    Finding(
        key=(
            "ranking",
            "evaluation of 22,363 users x 12,101 items with SASRec",
            AUTHORS_LOOP,
            "all items, 1 thread",
        ),
        label="Evaluation of 22,363 users on all 12,101 items, 1 thread",
        against="the authors' loop: 10,000 users, 101 candidates",
        short="Ranking all 12,101 items for 22,363 users, 1 thread",
    ),
]

_TABLE = re.compile(r"(?<=<!-- table:speed -->\n).*?(?=<!-- /table:speed -->)", re.DOTALL)
Rows = dict[tuple[str, str, str, str], dict[str, str]]


def read_rows(device: str = DEVICE) -> Rows:
    """Returns the rows of a device by concept, case, opponent and ours."""
    path = Path(__file__).parent / "results" / f"{device}.csv"
    with path.open(newline="") as file:
        return {
            (row["concept"], row["case"], row["opponent"], row["ours"]): row
            for row in csv.DictReader(file)
        }


def format_long(rows: Rows) -> str:
    """Returns the table of docs/speed.md: every finding with its spread."""
    lines = [
        "| input | opponent | times as fast: median (20th to 80th percentile) |",
        "| --- | --- | --- |",
    ]
    for finding in FINDINGS:
        median, low, high = (
            _format(rows[finding.key][f"ratio_{name}"]) for name in ("median", "p20", "p80")
        )
        lines.append(f"| {finding.label} | {finding.against} | {median} ({low} to {high}) |")
    return "\n".join(lines) + "\n"


def format_short(rows: Rows) -> str:
    """Returns the table of README.md: a row for each thing that is fast or slow."""
    lines = ["| what | against | times as fast |", "| --- | --- | --- |"]
    for finding in FINDINGS:
        if finding.short is not None:
            median = _format(rows[finding.key]["ratio_median"])
            lines.append(f"| {finding.short} | {finding.against} | {median} |")
    return "\n".join(lines) + "\n"


def fill_in(text: str, table: str) -> str:
    """Returns a document with another speed table between its marks."""
    filled, count = _TABLE.subn(lambda _: table, text)
    if count != 1:
        raise ValueError(f"a document has one pair of marks table:speed: got {count}")
    return filled


def documents() -> dict[Path, str]:
    """Returns the documents with a speed table, as they should be."""
    rows = read_rows()
    tables = {"README.md": format_short(rows), "docs/speed.md": format_long(rows)}
    return {
        ROOT / name: fill_in((ROOT / name).read_text(encoding="utf-8"), table)
        for name, table in tables.items()
    }


def main() -> None:
    """Writes the tables."""
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


def _format(number: str) -> str:
    value = float(number)
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
