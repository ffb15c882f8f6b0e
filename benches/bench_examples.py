"""Examples of GNER: sentences in memory to lines, and files of columns to examples and to lines.

The last two are those of `lmcore.ner`, against the authors' builder.
"""

from __future__ import annotations

import json
import tempfile
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Any

import authors_examples as authors
from lmcore.ner import (
    Example,
    SampleConfig,
    build_examples,
    read_sentences,
    write_examples,
)
from lmcore.ner.instructions import INSTRUCTION, join_target, read_template
from lmcore.ops.examples import write_examples_batch
from lmcore.worlds import ner
from timing import Row, compare, print_conditions, save

SENTENCES = 100_000


def main() -> None:
    """Runs all cases."""
    print_conditions()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        types = _write_world(folder)
        source, target = folder / "train.txt", folder / "out.jsonl"
        rows = []

        def read() -> Any:
            return read_sentences(source, types=types)

        def theirs() -> None:
            deque(authors.build(*authors.read(source, folder / "label.txt")), 0)

        def ours() -> None:
            deque(build_examples(read()), 0)

        def write() -> None:
            write_examples([source], target, sample=SampleConfig(cap=None), types=types)

        _check(list(build_examples(read())), *authors.read(source, folder / "label.txt"))
        case = f"{SENTENCES} sentences"
        rows += _compare_lines(list(islice(build_examples(read()), 10_000)))
        rows += compare(
            "examples",
            f"{case}: columns to examples",
            ("authors, pandas and Python", theirs),
            ("lmcore", ours, "3"),
            ("lmcore, reading alone", lambda: deque(read(), 0), ""),
            rounds=5,
            repeats=1,
        )
        rows += compare(
            "examples",
            f"{case}: columns to a file",
            ("authors, within datasets", lambda: _theirs_to_file(source, folder)),
            ("lmcore", write, "3"),
            rounds=5,
            repeats=1,
        )
        save("examples", rows)


def _compare_lines(examples: list[Example]) -> list[Row]:
    """Sentences whose types are in order, to lines."""
    sentences = [example.sentence for example in examples]
    template = read_template(INSTRUCTION)
    parts = template.parts(with_dataset=False)
    heads = ["" for _ in examples]
    types = [example.types for example in examples]
    words = [sentence.words for sentence in sentences]
    labels = [sentence.labels for sentence in sentences]

    def encode() -> bytes:
        rows = (
            {
                "types": types[i], "words": words[i], "labels": labels[i],
                "instruction": template.fill(words[i], types[i], None),
                "target": join_target(words[i], labels[i], "all"),
            }
            for i in range(len(examples))
        )  # fmt: skip
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()

    def write(threads: int) -> bytes:
        return write_examples_batch(heads, types, words, labels, parts, threads=threads)[0]

    assert encode() == write(1) == write(2)
    return compare(
        "examples",
        f"{len(examples)} sentences in memory to lines",
        ("Python, texts and json", encode),
        ("lmcore, one thread", lambda: write(1), ""),
        ("lmcore, two threads", lambda: write(2), ""),
    )


def _write_world(folder: Path) -> list[str]:
    """A generated corpus in the authors' form; returns its types."""
    sentences = ner.generate_sentences("en", SENTENCES, seed=1)
    with open(folder / "train.txt", "w", encoding="utf-8") as file:
        for sentence in sentences:
            pairs = zip(sentence.words, sentence.labels, strict=True)
            file.write("".join(f"{word}\t{label}\n" for word, label in pairs) + "\n")
    types = [*sentences[0].label_list]
    (folder / "label.txt").write_text("\n".join(types) + "\n")
    return types


def _check(ours: list[Example], sentences: list[dict[str, Any]], types: list[str]) -> None:
    """Asserts that the texts are the same where types stand in the same order."""
    assert len(ours) == len(sentences) == SENTENCES
    orders = iter([example.types for example in ours])

    def shuffle(types: list[str]) -> None:
        types[:] = next(orders)

    for example, row in zip(ours, authors.build(sentences, types, shuffle), strict=True):
        instance = row["instance"]
        assert example.instruction == instance["instruction_inputs"]
        assert example.target == instance["prompt_labels"]
        assert example.sentence.words == instance["words"]


def _theirs_to_file(source: Path, folder: Path) -> None:
    """The authors' builder as they run it: within `datasets`, which writes a file of Arrow."""
    import datasets

    datasets.disable_progress_bars()
    text, texts = datasets.Value("string"), datasets.Sequence(datasets.Value("string"))
    instance = {
        "id": text, "words": texts, "labels": texts, "instruction_inputs": text,
        "prompt_labels": text,
    }  # fmt: skip
    row = {"dataset": text, "split": text, "label_list": texts, "instance": instance}

    def generate() -> Any:
        yield from authors.build(*authors.read(source, folder / "label.txt"))

    with tempfile.TemporaryDirectory() as cache:
        features = datasets.Features(row)
        datasets.Dataset.from_generator(generate, features=features, cache_dir=cache)


if __name__ == "__main__":
    main()
