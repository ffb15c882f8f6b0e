"""Prediction on a CPU: forced words against free decoding and against token by token; batches.

The models have random weights, so their texts say nothing, and the work is that of trained ones.
A free text of random weights does not end by itself: free decoding writes as many tokens as the
constrained text of the sentence has, which is what a trained model would write.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from lmcore.ner.decoding import ConstrainedDecoding, Constraint, ConstraintMaker
from lmcore.ner.forcing import generate_forced
from lmcore.ner.instructions import write_instruction
from lmcore.worlds import ner
from timing import Row, compare, print_conditions, save

TYPES = ["person", "city", "organisation"]
BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
TINY = {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 2, "num_heads": 4}


def make_sentences(count: int, most: int = 1) -> list[list[str]]:
    """Returns sentences of a generated world, up to `most` of them joined to one."""
    generator = np.random.default_rng(1)
    made = [list(s.words) for s in ner.generate_sentences("en", count * most, seed=1)]
    joined = []
    for start in range(0, count * most, most):
        # Most are short, and some are long.
        number = 1 + int((most - 1) * generator.random() ** 2)
        joined.append([word for words in made[start : start + number] for word in words])
    return joined


def make_tokenizer(sentences: list[list[str]]) -> Any:
    """Returns a tokenizer of word pieces, frequent words whole, as T5's is."""
    known = Tokenizer(models.BPE(unk_token="<unk>"))
    known.pre_tokenizer = pre_tokenizers.Metaspace()
    known.decoder = decoders.Metaspace()
    texts = [" ".join(f"{word}({label})" for word in words for label in ("O", "B-city", "I-person"))
             for words in sentences]  # fmt: skip
    texts.append(write_instruction(["a"], TYPES))
    known.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=8000, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False
        ),
    )
    known.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=known, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


class Case:
    """A model and sentences, in batches."""

    def __init__(
        self, shape: dict[str, int], sentences: list[list[str]], vocabulary: int = 32_128
    ) -> None:
        torch.manual_seed(0)
        self.tokenizer = make_tokenizer(sentences)
        start: dict[str, Any] = {"decoder_start_token_id": 0}
        config = T5Config(vocab_size=vocabulary, dropout_rate=0.0, **shape, **start)
        self.model: Any = T5ForConditionalGeneration(config).eval()
        maker = ConstraintMaker(self.tokenizer)
        self.constraints = [maker(words, TYPES) for words in sentences]
        self.instructions = [write_instruction(words, TYPES) for words in sentences]
        self.lengths = [len(ids) for ids in self.tokenizer(self.instructions)["input_ids"]]

    def batches(self, size: int, *, is_sorted: bool) -> list[list[int]]:
        """Returns places of sentences."""
        order = list(range(len(self.lengths)))
        if is_sorted:
            order.sort(key=lambda place: -self.lengths[place])
        return [order[start : start + size] for start in range(0, len(order), size)]

    def encode(self, places: list[int]) -> tuple[dict[str, Any], list[Constraint]]:
        """Returns what the model reads, and what it may write."""
        texts = [self.instructions[place] for place in places]
        found = self.tokenizer(texts, padding=True, return_tensors="pt")
        inputs = {key: found[key] for key in ("input_ids", "attention_mask")}
        return inputs, [self.constraints[place] for place in places]

    def force(self, batches: list[list[int]]) -> dict[int, list[int]]:
        """Returns constrained texts, forced tokens fed at once."""
        made = {}
        for places in batches:
            inputs, constraints = self.encode(places)
            texts = generate_forced(self.model, constraints, inputs)
            made |= dict(zip(places, (text.tokens for text in texts), strict=True))
        return made

    def constrain(self, batches: list[list[int]]) -> dict[int, list[int]]:
        """Returns constrained texts, token by token."""
        made = {}
        for places in batches:
            inputs, constraints = self.encode(places)
            found = self.model.generate(
                **inputs, max_new_tokens=max(c.most_tokens for c in constraints), do_sample=False,
                logits_processor=LogitsProcessorList([
                    ConstrainedDecoding(constraints, prompt_length=1)
                ]),
            )[:, 1:].tolist()  # fmt: skip
            for place, tokens in zip(places, found, strict=True):
                made[place] = tokens[: tokens.index(1) + 1]
        return made

    def write(self, batches: list[list[int]], lengths: dict[int, int]) -> None:
        """Writes free texts of given lengths."""
        for places in batches:
            inputs, _ = self.encode(places)
            count = max(lengths[place] for place in places)
            self.model.generate(
                **inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False
            )


def compare_decoding(size: int, count: int, rounds: int) -> list[Row]:
    """Forced words against free decoding and against token by token."""
    sentences = [words for words in make_sentences(4 * count) if len(words) >= 12][:count]
    case = Case(BASE, sentences)
    batches = case.batches(size, is_sorted=True)
    forced = case.force(batches)
    if forced != case.constrain(batches):
        raise AssertionError("forced tokens differ from those of one by one")
    lengths = {place: len(tokens) for place, tokens in forced.items()}
    words = sum(map(len, sentences)) / len(sentences)
    name = f"T5-base shape, {count} sentences of {words:.0f} words, batches of {size}"
    ours = ("forced words in one step", lambda: case.force(batches), "1.5")
    return [
        *compare("ner_prediction", name, ("free decoding", lambda: case.write(batches, lengths)),
                 ours, rounds=rounds, repeats=1),
        *compare("ner_prediction", name, ("token by token", lambda: case.constrain(batches)),
                 ours, rounds=rounds, repeats=1),
    ]  # fmt: skip


def compare_orders(size: int, count: int, rounds: int) -> list[Row]:
    """Batches of similar lengths against those of the input's order.

    How much this saves depends on how many batches there are: with few, a batch by length still
    holds short sentences beside long ones.
    """
    sentences = make_sentences(count, most=6)
    case = Case(TINY, sentences, vocabulary=8000)
    fixed, ordered = (case.batches(size, is_sorted=is_sorted) for is_sorted in (False, True))
    forced = case.force(ordered)
    if forced != case.force(fixed):
        raise AssertionError("the texts depend on the batches")
    lengths = {place: len(tokens) for place, tokens in forced.items()}
    counts = sorted(map(len, sentences))
    name = (
        f"T5 of 2 layers of 256, {count} sentences of {counts[0]} to {counts[-1]} words, "
        f"batches of {size}"
    )
    return compare(
        "ner_prediction", name,
        ("free, in the input's order", lambda: case.write(fixed, lengths)),
        ("free, by length", lambda: case.write(ordered, lengths), "2"),
        rounds=rounds, repeats=1,
    )  # fmt: skip


def main() -> None:
    """Runs all cases."""
    print_conditions()
    quick = "--quick" in sys.argv[1:]
    rounds = 1 if quick else 5
    rows = compare_decoding(1, 2 if quick else 4, rounds)
    rows += compare_decoding(8, 8, rounds)
    rows += compare_orders(16, 32 if quick else 256, 1 if quick else 3)
    if not quick:
        save("ner_prediction", rows)


if __name__ == "__main__":
    main()
