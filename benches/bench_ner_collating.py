"""Putting a batch of GNER together against the step of training that it is for.

Of no concept. The opponent is no other code: the ratio says how many batches could be put together
during one step, 100 where collating is a hundredth of it.
"""

from __future__ import annotations

import sys

import torch
from transformers import T5Config, T5ForConditionalGeneration

from bench_ner_prediction import TYPES, make_sentences, make_tokenizer
from lmcore.ner import GNERCollator, build_examples
from timing import Row, compare, print_conditions, save

SIZE = 16


def main() -> None:
    """Runs the case."""
    print_conditions()
    torch.manual_seed(0)
    sentences = make_sentences(SIZE)
    tokenizer = make_tokenizer(sentences)
    rows = [
        example.to_row()
        for example in build_examples(
            {"words": words, "labels": ["O"] * len(words), "types": TYPES} for words in sentences
        )
    ]
    config = T5Config(
        vocab_size=32_128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8,
        decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    optimizer = torch.optim.AdamW(model.parameters())
    collator = GNERCollator(tokenizer, model=model)
    encoded = collator.encode(rows)
    batch = collator(rows)
    both = collator.pad(encoded)
    assert all(torch.equal(both[name], batch[name]) for name in both)

    def step() -> None:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    found: list[Row] = compare(
        "ner_collating", f"T5-small shape, {SIZE} rows",
        ("a step of training", step),
        ("padding rows of tokens, as ner train does", lambda: collator.pad(encoded), "100"),
        ("collating rows of text, as for Trainer", lambda: collator(rows), "100"),
        rounds=3 if "--quick" in sys.argv[1:] else 7, repeats=1,
    )  # fmt: skip
    save("ner_collating", found)


if __name__ == "__main__":
    main()
