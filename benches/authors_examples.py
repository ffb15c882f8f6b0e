"""The GNER authors' builder of examples, written for timing.

Same steps, same data structures and same cost as their script, in our words, without the library
`datasets` around it: a file of columns is read by pandas and walked row by row, types are shuffled
in place by Python's generator, and instruction and target are put together.
"""

import csv
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

_PREFIX = (
    "Please analyze the sentence provided, identifying the type of entity for each word on a "
    "token-by-token basis.\n"
    "Output format is: word_1(label_1), word_2(label_2), ...\n"
    "We'll use the BIO-format to label the entities, where:\n"
    "1. B- (Begin) indicates the start of a named entity.\n"
    "2. I- (Inside) is used for words within a named entity but are not the first word.\n"
    "3. O (Outside) denotes words that are not part of a named entity.\n"
)
Shuffle = Callable[[list[str]], None]


def read(path: Path, types_path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the sentences of a file, and the types."""
    table = pd.read_csv(
        path, delimiter="\t", quoting=csv.QUOTE_NONE, skip_blank_lines=False, header=None,
        keep_default_na=False, na_values=[""], low_memory=False,
    )  # fmt: skip
    types = types_path.read_text().splitlines()
    sentences: list[dict[str, Any]] = []
    number = 0
    words: list[str] = []
    labels: list[str] = []
    for row in table.values:
        if not pd.isna(row[1]):
            words.append(row[0])
            labels.append(row[-1])
        elif words != []:
            sentences.append({"id": number, "words": words, "labels": labels})
            number += 1
            words, labels = [], []
    if words != []:
        sentences.append({"id": number, "words": words, "labels": labels})
    return sentences, types


def build(
    sentences: list[dict[str, Any]], types: list[str], shuffle: Shuffle = random.shuffle
) -> Iterator[dict[str, Any]]:
    """Yields one example after the other."""
    for number, sentence in enumerate(sentences):
        words, labels = sentence["words"], sentence["labels"]
        shuffle(types)
        instruction = _PREFIX
        instruction += f"\nUse the specific entity tags: {', '.join(types)} and O.\n"
        instruction += "Sentence: " + " ".join(words)
        parts = []
        for word, label in zip(words, labels, strict=True):
            parts.append(f"{word}({label})")
        yield {
            "dataset": "generated",
            "split": "train",
            "label_list": types,
            "instance": {
                "id": str(number),
                "words": words,
                "labels": labels,
                "instruction_inputs": instruction,
                "prompt_labels": " ".join(parts),
            },
        }
