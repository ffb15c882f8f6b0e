"""Generation with caches of all kinds, and steps with a cache against the whole forward."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache

from lmcore.openba import OpenBAForConditionalGeneration
from tiny_openba import make_batch, make_model

DEPTHS = [(2, 5), (5, 2), (1, 1)]
IMPLEMENTATIONS = ["eager", "sdpa", "lmcore"]


def make_cache(model: OpenBAForConditionalGeneration, kind: str, source: int) -> Any:
    if kind == "dynamic":
        return EncoderDecoderCache(DynamicCache(), DynamicCache())
    config = model.config.get_text_config(decoder=True)
    # Room for more than is used, in both.
    return EncoderDecoderCache(
        StaticCache(config=config, max_cache_len=20),
        StaticCache(config=config, max_cache_len=source + 3),
    )


def largest(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@torch.no_grad()
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("depths", DEPTHS, ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_steps_with_a_cache_are_the_whole_forward(
    implementation: str, kind: str, depths: tuple[int, int], padded: bool
) -> None:
    """Steps of one token and of several; the authors' mask is right for one alone."""
    encoder, decoder = depths
    model = make_model(
        encoder_layers=encoder, decoder_layers=decoder, attn_implementation=implementation
    )
    batch = make_batch(target=12)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    target = torch.randint(2, 60, (3, 12), generator=torch.Generator().manual_seed(1))
    target_mask = torch.ones_like(target)
    if padded:
        target_mask[1, :2] = 0
    whole = model(ids, mask, target, target_mask).logits
    cache = make_cache(model, kind, ids.shape[1])
    encoded = model.encoder(ids, mask)
    start = 0
    for length in (1, 1, 4, 1, 3, 2):
        stop = start + length
        output = model(
            attention_mask=mask,
            encoder_outputs=encoded,
            decoder_input_ids=target[:, start:stop],
            decoder_attention_mask=target_mask[:, :stop] if padded else None,
            cache=cache,
        )
        # A hidden row attends to all keys alike, of which a step with a cache has fewer.
        seen = target_mask[:, start:stop].bool()
        assert output.cache is cache
        assert largest(output.logits[seen], whole[:, start:stop][seen]) < 1e-5
        start = stop
    assert int(cache.get_seq_length()) == 12


@torch.no_grad()
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("depths", DEPTHS, ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"do_sample": True, "top_p": 0.8}, {"num_beams": 2, "do_sample": True}],
    ids=str,
)
def test_caches_change_no_token(
    implementation: str, depths: tuple[int, int], options: dict[str, Any]
) -> None:
    encoder, decoder = depths
    model = make_model(
        encoder_layers=encoder, decoder_layers=decoder, attn_implementation=implementation
    )
    batch = make_batch()
    tokens = []
    for cache in ({"use_cache": False}, {}, {"cache_implementation": "static"}):
        torch.manual_seed(5)
        tokens.append(
            model.generate(
                batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=12,
                min_new_tokens=8,
                **{"do_sample": False, **options, **cache},
            )
        )
    assert tokens[0].shape[1] > 8
    assert tokens[0].tolist() == tokens[1].tolist() == tokens[2].tolist()


@torch.no_grad()
def test_greedy_tokens_are_the_largest_logits() -> None:
    model, batch = make_model(), make_batch()
    ids, mask = batch["input_ids"], batch["attention_mask"]
    tokens = model.generate(
        ids, attention_mask=mask, max_new_tokens=6, min_new_tokens=6, do_sample=False,
        eos_token_id=None,
    )  # fmt: skip
    logits = model(ids, mask, tokens[:, :-1]).logits
    assert tokens[:, 1:].tolist() == logits.argmax(-1).tolist()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_keys_are_kept_in_the_type_of_the_model(dtype: torch.dtype) -> None:
    """The authors keep them in float32, which takes half as much again."""
    model, batch = make_model().to(dtype), make_batch()
    cache = model(**batch, use_cache=True).cache
    for part, length in ((cache.self_attention_cache, 7), (cache.cross_attention_cache, 9)):
        assert len(part.layers) == 3
        for layer in part.layers:
            assert layer.keys.shape == layer.values.shape == (3, 4, length, 12)
            assert layer.keys.dtype == layer.values.dtype == dtype


@torch.no_grad()
def test_the_source_is_projected_once() -> None:
    model, batch = make_model(), make_batch()
    calls: list[int] = []
    for block in model.decoder.block:
        block.inter_attn.kv.register_forward_hook(lambda *_: calls.append(1))
    model.generate(batch["input_ids"], max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert len(calls) == 3


def test_a_cache_of_another_kind_is_refused() -> None:
    model, batch = make_model(), make_batch()
    wrong: Any = DynamicCache()
    with pytest.raises(TypeError, match="cache must be an EncoderDecoderCache: got DynamicCache"):
        model(**batch, cache=wrong)


@torch.no_grad()
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_compiled_steps_make_no_graph_per_token(implementation: str) -> None:
    """One graph for the decoding step, with the tokens of what is not compiled."""
    from torch._dynamo.testing import CompileCounter

    model, batch = make_model(attn_implementation=implementation), make_batch()
    ids, mask = batch["input_ids"], batch["attention_mask"]
    encoded = model.encoder(ids, mask)
    cache = make_cache(model, "static", ids.shape[1])
    target = torch.randint(2, 60, (3, 14), generator=torch.Generator().manual_seed(1))
    whole = model(ids, mask, target).logits
    torch._dynamo.reset()
    counter = CompileCounter()
    step = torch.compile(model.forward, backend=counter, fullgraph=True)

    def decode(start: int, stop: int, call: Any) -> Tensor:
        logits: Tensor = call(
            attention_mask=mask,
            encoder_outputs=encoded,
            decoder_input_ids=target[:, start:stop],
            cache=cache,
        ).logits
        return logits

    assert largest(decode(0, 3, model), whole[:, :3]) < 1e-5
    graphs = []
    for position in range(3, 14):
        logits = decode(position, position + 1, step)
        assert largest(logits, whole[:, position : position + 1]) < 1e-5
        graphs.append(counter.frame_count)
    assert graphs == [1] * 11
    torch._dynamo.reset()


@torch.no_grad()
def test_generate_compiles_for_a_static_cache() -> None:
    from torch._dynamo.utils import counters
    from transformers.generation.configuration_utils import CompileConfig

    model, batch = make_model(), make_batch()
    torch._dynamo.reset()
    counters.clear()
    config = CompileConfig(backend="eager", mode=None, fullgraph=True)
    config._compile_all_devices = True
    options: dict[str, Any] = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False}
    plain = model.generate(batch["input_ids"], **options)
    tokens = model.generate(
        batch["input_ids"], cache_implementation="static", compile_config=config, **options
    )
    assert tokens.tolist() == plain.tolist()
    assert counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()
