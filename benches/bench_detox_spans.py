"""Span finding of prompts in batches against one prompt at a time, and the loss against a loop.

The prompts are RealToxicityPrompts' where `LMCORE_DATA` names them, and else made here. The model
has BERT-base's shape and random weights.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

import authors_detox as authors
from lmcore.detox import SegmentCNNConfig, SegmentCNNModel, SpanFinder, compute_span_loss
from lmcore.detox.tokenization import SegmentTokenizer, load_tokenizer, make_tokenizer
from lmcore.ops.philox import random_below, random_uniform
from timing import Row, compare, print_conditions, save, scale

# Ours has more of them, to sort and to batch; the opponent's time is scaled.
PROMPTS, PART = 64, 8
ROWS, LENGTH = 256, 128


def find_prompts() -> tuple[list[str], SegmentTokenizer, str]:
    """Returns prompts, their tokenizer, and where they are from."""
    folder = Path(os.environ.get("LMCORE_DATA", "."))
    file, vocabulary = (
        folder / "tox/rtp3000_llama2_7b_continuation.jsonl",
        folder / "tok/bert_base_uncased_vocab.txt",
    )
    if file.is_file() and vocabulary.is_file():
        lines = file.read_text(encoding="utf-8").splitlines()[:PROMPTS]
        texts = [json.loads(line)["prompt"]["text"] for line in lines]
        return texts, load_tokenizer(vocabulary), "RealToxicityPrompts"
    lengths = random_below(1, 1, range(PROMPTS), 1, 20)[:, 0] + 4
    words = random_below(1, 2, range(PROMPTS), 24, 20_000)
    texts = [
        " ".join(f"w{word}" for word in row[:length])
        for row, length in zip(words, lengths, strict=True)
    ]
    return texts, make_tokenizer([f"w{word}" for word in range(20_000)]), "made"


def find_rows() -> list[Row]:
    """Times prompts to labels of pairs, unpadded and padded to 128 as the authors have them."""
    texts, tokenizer, origin = find_prompts()
    torch.manual_seed(0)
    model = SegmentCNNModel(SegmentCNNConfig(vocab_size=tokenizer.vocabulary_size)).eval()
    finder = SpanFinder(model, tokenizer)
    rough = SpanFinder(copy.deepcopy(model).to(torch.bfloat16), tokenizer, batch_tokens=8192)
    theirs = authors.make_tokenizer(tokenizer)
    part = texts[::PART]

    def one_by_one(pad_to: int | None) -> list[list[int]]:
        return [authors.find_pairs(model, theirs, text, pad_to) for text in part]

    expected = [found.labels.tolist() for found in finder.find(part)]
    # Random weights judge at chance, so that labels lie on the border: probabilities are compared.
    pairs = zip(finder.find(part), rough.find(part), strict=True)
    assert max(np.abs(one.scores - other.scores).max() for one, other in pairs) < 0.02
    case = f"spans of {len(texts)} {origin} prompts, BERT-base"
    rows: list[Row] = []
    for pad_to, name, goal in ((None, "unpadded", "3"), (128, "padded to 128", "8")):
        assert one_by_one(pad_to) == expected
        found = compare(
            "detox_spans", case,
            (f"one by one, {name}, scaled from {len(part)}", lambda pad=pad_to: one_by_one(pad)),
            ("batches by length", lambda: finder.find(texts), goal),
            ("batches by length, bfloat16", lambda: rough.find(texts), goal),
            rounds=3, repeats=1,
        )  # fmt: skip
        rows += [scale(row, len(texts) / len(part)) for row in found]
    return rows


def loss_rows() -> list[Row]:
    """Times the loss of a batch of 256 rows of 128, from logits to a number."""
    logits = torch.from_numpy(
        random_uniform(1, 3, range(ROWS), (LENGTH - 1) * 2).astype(np.float32) * 8 - 4
    ).view(ROWS, LENGTH - 1, 2)
    draws = random_uniform(1, 4, range(ROWS), LENGTH - 1)
    labels = torch.from_numpy(np.where(draws < 0.5, -100, np.where(draws < 0.93, 0, 1)))

    def loop() -> torch.Tensor:
        return authors.span_loss(logits.softmax(-1), labels)

    assert torch.allclose(loop(), compute_span_loss(logits, labels), atol=1e-6)
    return compare(
        "detox_spans", f"span loss of {ROWS} x {LENGTH - 1} segments",
        ("a loop over labels", loop), ("masks", lambda: compute_span_loss(logits, labels), "100"),
    )  # fmt: skip


def main() -> None:
    """Runs all cases."""
    print_conditions()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    rows = loss_rows() + find_rows()
    if "--dry" not in sys.argv[1:]:
        save("detox_spans", rows)


if __name__ == "__main__":
    main()
