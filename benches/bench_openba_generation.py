"""Greedy decoding of OpenBA with a cache against without, and whether a token's cost grows.

Eight decoder blocks of hidden size 256, on a CPU. Both give the same tokens, which is asserted
first.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers.cache_utils import EncoderDecoderCache, StaticCache

from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration
from timing import Row, compare, print_conditions, save

NEW, SOURCE, LAST = 128, 64, 500
CONFIG = {
    "vocab_size": 8000, "hidden_size": 256, "kv_channels": 64, "num_heads": 4,
    "ffn_hidden_size": 704, "swiglu_rule": False, "encoder_layers": 2, "decoder_layers": 8,
    "decoder_max_seq_length": 512, "tie_word_embeddings": False,
}  # fmt: skip


def make_model() -> OpenBAForConditionalGeneration:
    """Returns a model whose tokens depend on its input."""
    torch.manual_seed(0)
    model = OpenBAForConditionalGeneration(OpenBAConfig(**CONFIG, initializer_factor=3.0))
    return model.eval()


def time_tokens(model: OpenBAForConditionalGeneration, source: Tensor) -> list[float]:
    """Returns the milliseconds of each token with a static cache."""
    config = model.config.get_text_config(decoder=True)
    cache = EncoderDecoderCache(
        StaticCache(config=config, max_cache_len=LAST + 1),
        StaticCache(config=config, max_cache_len=source.shape[1]),
    )
    encoded = model.encoder(source)
    token, times = torch.zeros(1, 1, dtype=torch.long), []
    for _ in range(LAST):
        start = time.perf_counter()
        output = model(encoder_outputs=encoded, decoder_input_ids=token, cache=cache)
        token = output.logits[:, -1:].argmax(-1)
        times.append(1000 * (time.perf_counter() - start))
    return times


def compare_caches(model: OpenBAForConditionalGeneration, source: Tensor) -> list[Row]:
    """Returns rows of both caches against none, after it has asserted equal tokens."""

    def decode(**options: object) -> Callable[[], Tensor]:
        return lambda: model.generate(
            source, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, **options
        )

    plain, cached = decode(use_cache=False), decode()
    static = decode(cache_implementation="static")
    wanted = plain().tolist()
    assert len(set(wanted[0])) > NEW // 8
    assert wanted == cached().tolist() == static().tolist()
    return compare(
        "openba_generation",
        f"{len(source)} x {NEW} tokens, 8 decoder blocks of 256",
        ("without a cache", plain),
        ("dynamic cache", cached, "3x"),
        ("static cache", static, "3x"),
        rounds=5,
        repeats=1,
    )


@torch.inference_mode()
def main() -> None:
    """Prints the comparison and the cost of tokens."""
    print_conditions()
    torch.set_num_threads(1)
    model = make_model()
    rows: list[Row] = []
    for batch in (1, 4):
        generator = torch.Generator().manual_seed(1)
        source = torch.randint(2, 8000, (batch, SOURCE), generator=generator)
        rows += compare_caches(model, source)
    source = source[:1]
    runs = [time_tokens(model, source) for _ in range(3)]
    early, late = (
        statistics.median(value for run in runs for value in run[start:stop])
        for start, stop in ((10, 50), (LAST - 40, LAST))
    )
    print(
        f"static cache, one token: {early:.2f} ms behind token 10, {late:.2f} ms before token "
        f"{LAST} | {late / early:.2f}x | asked: 1.5x"
    )
    if "--save" in sys.argv[1:]:
        save("openba_generation", rows)


if __name__ == "__main__":
    main()
