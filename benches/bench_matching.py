"""Hierarchical Matching of many sentences against the definition and the authors' steps."""

from __future__ import annotations

import authors
import inputs
from lmcore.ops.matching import match_labels_batch
from lmcore.reference.matching import match_labels
from timing import compare, print_conditions, save


def main() -> None:
    """Runs all cases."""
    print_conditions()
    rows = []
    for case, examples in (
        ("noisy", inputs.noisy_rows(2_000)),
        ("mostly exact", inputs.mostly_exact_rows(2_000)),
    ):
        words = [row["instance"]["words"] for row in examples]
        texts = [row["prediction"] for row in examples]
        lists = [row["label_list"] for row in examples]
        triples = list(zip(words, texts, lists, strict=True))

        def theirs(triples: list = triples) -> list[list[str]]:
            labels = []
            for words, text, label_list in triples:
                valid = {prefix + label for label in label_list for prefix in ("B-", "I-")}
                generated, read = authors.parse(text)
                read = [label if label in valid else "O" for label in read]
                labels.append(authors.match(words, generated, read, None))
            return labels

        def define(triples: list = triples) -> list:
            return [match_labels(*triple) for triple in triples]

        def ours(
            threads: int, words: list = words, texts: list = texts, lists: list = lists
        ) -> list:
            return match_labels_batch(words, texts, lists, threads=threads)

        assert ours(2) == define()
        assert [match.labels for match in ours(1)] == theirs()
        name = f"2000 sentences, {case}"
        for opponent in (("authors, labels only", theirs), ("reference, full report", define)):
            rows += compare(
                "matching",
                name,
                opponent,
                ("1 thread, full report", lambda ours=ours: ours(1), ""),
                ("2 threads, full report", lambda ours=ours: ours(2), ""),
            )
    save("matching", rows)


if __name__ == "__main__":
    main()
