"""The algorithms of the GNER authors' evaluator, written for timing.

Same steps, same data structures and same cost as their script, in our words; the tests hold
`lmcore.reference` to their outputs, and each bench asserts that this file agrees with lmcore.
"""

import json
import re
import string
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

_Pairs = tuple[list[str], list[str]]
RoundTrip = Callable[[list[str]], list[str]]


def parse(text: str) -> _Pairs:
    """Returns words and labels of a generated text."""
    words, labels, end = [], [], 0
    for found in re.finditer(r"\(B-.*?\)|\(I-.*?\)|\(O\)", text):
        start, stop = found.span()
        if text[end:start].strip() != "":
            words.append(text[end:start].strip())
            labels.append(text[start + 1 : stop - 1].strip())
        end = stop
    return words, labels


def find_subsequence(a: Sequence[str], b: Sequence[str]) -> list[int] | None:
    """Returns greedy partners of `a` in `b`, or None if `b` is no subsequence."""
    partners, k = [-1] * len(a), 0
    if not b:
        return partners
    for i in range(len(a)):
        if a[i] == b[k]:
            partners[i] = k
            k += 1
            if k == len(b):
                return partners
    return None


def align_fast(a: Sequence[Any], b: Sequence[Any]) -> list[int]:
    """Returns the alignment by Hunt-Szymanski: a list of tuples per pile, all pairs listed."""
    positions = defaultdict(list)
    for offset, word in enumerate(reversed(b)):
        positions[word].append(len(b) - offset - 1)
    sequence: list[int] = []
    rows: list[int] = []
    for i, word in enumerate(a):
        if word in positions:
            sequence.extend(positions[word])
            rows.extend([i] * len(positions[word]))
    piles, tops = [[(-1, -1, -1)]], [-1]
    for k in range(len(sequence)):
        if sequence[k] > tops[-1]:
            piles.append([(len(piles[-1]) - 1, k, sequence[k])])
            tops.append(sequence[k])
        else:
            low, high, level = 0, len(tops) - 1, -1
            while low <= high:
                middle = (low + high) >> 1
                if tops[middle] >= sequence[k]:
                    level, high = middle, middle - 1
                else:
                    low = middle + 1
            piles[level].append((len(piles[level - 1]) - 1, k, sequence[k]))
            tops[level] = sequence[k]
    alignment = [-1] * len(a)
    level, card = len(piles) - 1, len(piles[-1]) - 1
    while level > 0:
        parent, k, j = piles[level][card]
        alignment[rows[k]] = j
        level, card = level - 1, parent
    return alignment


def match(
    words: Sequence[str], generated: Sequence[str], labels: list[str], round_trip: RoundTrip | None
) -> list[str]:
    """Returns one label per word."""
    raw = list(map(str.lower, words))
    lower = list(map(str.lower, generated))
    if round_trip is not None:
        raw = round_trip(raw)
    if raw == lower:
        return labels
    partners = find_subsequence(raw, lower)
    if partners is None:
        partners = align_fast(raw, lower)
    return [labels[j] if j != -1 else "O" for j in partners]


def normalize(text: str) -> str:
    """Returns a text without case, punctuation, articles and extra white space."""
    punctuation = set(string.punctuation)
    text = "".join(character for character in text.lower() if character not in punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def list_entities(words: Sequence[str], labels: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the distinct (text, type) of a sentence."""
    spans: list[tuple[str, str]] = []
    open_words: list[str] = []
    kind = None
    for word, label in zip(words, labels, strict=True):
        if open_words and (label[0] == "B" or label[0] == "O"):
            spans.append((" ".join(open_words), str(kind)))
            open_words, kind = [], None
        if label != "O":
            open_words.append(word)
            kind = label[2:]
    if kind is not None:
        spans.append((" ".join(open_words), kind))
    entities: list[tuple[str, str]] = []
    for text, name in spans:
        entity = (normalize(text), normalize(name))
        if entity not in entities:
            entities.append(entity)
    return entities


def evaluate(
    examples: Sequence[dict[str, Any]], round_trip: RoundTrip | None = None
) -> tuple[int, int, int]:
    """Returns the numbers of gold, predicted and correct entities."""
    correct = gold = predicted = 0
    for example in examples:
        words, labels = example["instance"]["words"], example["instance"]["labels"]
        generated, read = parse(example["prediction"].strip())
        valid: list[str] = []
        for name in example["label_list"]:
            valid.extend([f"B-{name}", f"I-{name}"])
        for k, label in enumerate(read):
            if label not in valid:
                read[k] = "O"
        found = match(words, generated, read, round_trip)
        wanted_entities = list_entities(words, labels)
        found_entities = list_entities(words, found)
        for entity in found_entities:
            if entity in wanted_entities:
                correct += 1
            predicted += 1
        gold += len(wanted_entities)
    return gold, predicted, correct


def evaluate_file(path: str) -> dict[str, tuple[int, int, int]]:
    """Returns the counts per data set of a JSONL file."""
    datasets = defaultdict(list)
    with open(path) as file:
        for line in file.readlines():
            row = json.loads(line)
            datasets[row["dataset"]].append(row)
    return {name: evaluate(rows) for name, rows in datasets.items()}
