"""The whole evaluation, from lists and from a file, against the authors' evaluator."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import authors
import inputs
from lmcore import ner
from timing import compare, print_conditions, save


def main() -> None:
    """Runs all cases."""
    print_conditions()
    rows = []
    for case, goals, examples in (
        ("noisy", ("24", "35", "50"), inputs.noisy_rows()),
        ("mostly exact", ("", "", ""), inputs.mostly_exact_rows()),
    ):
        name = f"{len(examples)} sentences, {case}"
        counts = authors.evaluate(examples)
        assert _counts(ner.score(examples)) == counts
        rows += compare(
            "predictions",
            f"{name}, lists",
            ("authors", lambda e=examples: authors.evaluate(e)),
            ("1 thread", lambda e=examples: ner.score(e, threads=1), goals[0]),
            ("2 threads", lambda e=examples: ner.score(e, threads=2), goals[1]),
        )
        with tempfile.TemporaryDirectory() as folder:
            path = inputs.write_rows(examples, Path(folder, "rows.jsonl"))
            assert _counts(ner.score_file(path)) == counts
            rows += compare(
                "predictions",
                f"{name}, JSONL file",
                ("authors", lambda p=path: authors.evaluate_file(str(p))),
                ("1 thread", lambda p=path: ner.score_file(p, threads=1), ""),
                ("2 threads", lambda p=path: ner.score_file(p, threads=2), goals[2]),
            )
    rows += _back_tokenization()
    save("predictions", rows)


def _back_tokenization() -> list[Any]:
    """Times 1,000 sentences with the words passed through a T5-like tokenizer."""
    examples = inputs.noisy_rows(1_000)
    tokenizer = _tokenizer([row["instance"]["words"] for row in examples])

    def round_trip(words: list[str]) -> list[str]:
        ids = tokenizer(words)["input_ids"]
        texts: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return texts

    warm = ner.BackTokenizer(tokenizer)
    expected = authors.evaluate(examples, round_trip)
    assert _counts(ner.score(examples, back_tokenize=warm)) == expected
    distinct = {word.lower() for row in examples for word in row["instance"]["words"]}
    without = _median(lambda: ner.score(examples))
    cold = _median(lambda: ner.score(examples, back_tokenize=ner.BackTokenizer(tokenizer)))
    hot = _median(lambda: ner.score(examples, back_tokenize=warm))
    theirs = _median(lambda: authors.evaluate(examples), 5)
    print(
        f"back tokenisation of 1000 sentences, {len(distinct)} distinct words: without "
        f"{without:.3g} ms, first call {cold:.3g} ms, later calls {hot:.3g} ms "
        f"({hot / without:.2f}x); first call / authors without: {cold / theirs:.2f}x"
    )
    return compare(
        "predictions",
        "1000 sentences with back tokenisation",
        ("authors", lambda: authors.evaluate(examples, round_trip)),
        (
            "first call",
            lambda: ner.score(examples, back_tokenize=ner.BackTokenizer(tokenizer)),
            "",
        ),
        ("later calls", lambda: ner.score(examples, back_tokenize=warm), ""),
    ) + compare(
        "predictions",
        "1000 sentences, with back tokenisation against without",
        ("authors, without", lambda: authors.evaluate(examples)),
        (
            "first call, with",
            lambda: ner.score(examples, back_tokenize=ner.BackTokenizer(tokenizer)),
            "at least 1 / 1.3",
        ),
    )


def _tokenizer(sentences: list[list[str]]) -> PreTrainedTokenizerFast:
    """Returns a Unigram tokenizer as T5's is built, trained on the words' lower case."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=800,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator((" ".join(words).lower() for words in sentences), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    )


def _counts(scores: ner.Scores) -> tuple[int, ...]:
    parts = [dataset.entities for dataset in scores.datasets.values()]
    return tuple(map(sum, zip(*parts, strict=True)))


def _median(call: Callable[[], object], rounds: int = 15) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


if __name__ == "__main__":
    main()
