"""`attn_implementation="lmcore"` in models of transformers, against their own `sdpa`."""

import importlib
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    bidirectional_mask_function,
    create_causal_mask,
    sliding_window_causal_mask_function,
)

from lmcore import attention as module
from lmcore.attention import attend, draw_seed, make_ranges
from lmcore.ops._dispatch import use

SIZES = {"vocab_size": 19, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 16}  # fmt: skip
LEFT = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
RIGHT = LEFT.flip(1)


def make_model(kind: str, implementation: str) -> Any:
    if kind == "llama":
        config: Any = transformers.LlamaConfig(
            **SIZES, num_key_value_heads=2, pad_token_id=0, eos_token_id=None
        )
    elif kind == "bert":
        config = transformers.BertConfig(**SIZES)
    elif kind == "bert decoder":
        config = transformers.BertConfig(**SIZES, is_decoder=True)
    else:
        config = transformers.T5Config(
            vocab_size=19, d_model=32, d_kv=8, d_ff=16, num_layers=2, num_heads=4,
            relative_attention_num_buckets=4, relative_attention_max_distance=6,
            decoder_start_token_id=0, eos_token_id=None, dropout_rate=0.0,
        )  # fmt: skip
    config._attn_implementation = implementation
    cls = {
        "llama": transformers.LlamaForCausalLM,
        "bert": transformers.BertForMaskedLM,
        "bert decoder": transformers.BertLMHeadModel,
        "t5": transformers.T5ForConditionalGeneration,
    }[kind]
    torch.manual_seed(0)
    return cls(config).eval()


def make_inputs(kind: str, mask: Tensor | None) -> dict[str, Any]:
    ids = torch.randint(1, 19, LEFT.shape, generator=torch.Generator().manual_seed(1))
    inputs: dict[str, Any] = {"input_ids": ids}
    if mask is not None:
        inputs |= {"input_ids": ids * mask, "attention_mask": mask}
    if kind == "t5":
        inputs["decoder_input_ids"] = ids[:, :4].flip(1)
    return inputs


def run(kind: str, implementation: str, mask: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    """Logits where there are tokens, and all gradients of their weighted sum."""
    model = make_model(kind, implementation)
    logits = model(**make_inputs(kind, mask)).logits
    if mask is not None and kind != "t5":
        logits = logits[mask.bool()]
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    (logits * weights).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    return logits.detach(), gradients


@pytest.mark.parametrize("kind", ["llama", "bert", "bert decoder", "t5"])
@pytest.mark.parametrize("mask", [None, LEFT, RIGHT, torch.ones_like(LEFT)],
                         ids=["none", "left", "right", "ones"])  # fmt: skip
def test_models_compute_what_sdpa_does(kind: str, mask: Tensor | None) -> None:
    expected, gradients = run(kind, "sdpa", mask)
    found, own = run(kind, "lmcore", mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(own, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_padding_changes_something(kind: str) -> None:
    """Else a mask that is lost in silence would not be seen here."""
    padded, _ = run(kind, "lmcore", LEFT)
    inputs = make_inputs(kind, LEFT) | {"attention_mask": None}
    plain = make_model(kind, "lmcore")(**inputs).logits
    plain = plain if kind == "t5" else plain[LEFT.bool()]
    assert (padded - plain).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("mask", [None, LEFT], ids=["none", "left"])
def test_models_generate_what_sdpa_does(kind: str, cache: str | None, mask: Tensor | None) -> None:
    inputs = make_inputs("", mask)
    found = []
    for implementation in ("sdpa", "lmcore"):
        model = make_model(kind, implementation)
        model.generation_config.disable_compile = True
        found.append(model.generate(
            **inputs, max_new_tokens=5, do_sample=False, cache_implementation=cache, pad_token_id=0,
            output_logits=True, return_dict_in_generate=True,
        ))  # fmt: skip
    assert torch.equal(found[0].sequences, found[1].sequences)
    torch.testing.assert_close(
        torch.stack(found[1].logits), torch.stack(found[0].logits), atol=1e-5, rtol=1e-5
    )


def test_a_prompt_in_parts() -> None:
    """Queries stand behind the keys of the cache."""
    ids = make_inputs("", None)["input_ids"]
    for mask in (None, LEFT):
        model = make_model("llama", "lmcore")
        whole = model(ids, attention_mask=mask).logits
        cache = transformers.DynamicCache()
        model(ids[:, :2], attention_mask=mask if mask is None else mask[:, :2], cache=cache)
        rest = model(ids[:, 2:], attention_mask=mask, cache=cache).logits
        seen = slice(None) if mask is None else mask[:, 2:].bool()
        torch.testing.assert_close(rest[seen], whole[:, 2:][seen], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mask", [LEFT, RIGHT], ids=["left", "right"])
def test_the_kernel_within_a_model(mask: Tensor) -> None:
    pytest.importorskip("triton")
    expected, gradients = run("llama", "sdpa", mask)
    with use("kernel"):
        found, own = run("llama", "lmcore", mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(own, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def test_a_model_compiles_without_a_break() -> None:
    torch.compiler.reset()
    model = make_model("llama", "lmcore")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for mask in (LEFT, RIGHT):
            inputs = make_inputs("llama", mask)
            found, expected = (each(**inputs).logits[mask.bool()] for each in (compiled, model))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_ranges_compile_to_a_program() -> None:
    torch.compiler.reset()

    @torch.compile(fullgraph=True)
    def shift(mask: Tensor) -> Tensor:
        ranges = make_ranges(3, 6, 6, attention_mask=mask)
        assert ranges is not None
        return ranges + 1

    assert shift(LEFT.bool())[:, 0, :, 0].tolist() == [[4, 4, 1], [1, 7, 1], [2, 6, 1]]
    with pytest.raises(RuntimeError, match="in one run in each row: attn_implementation=sdpa"):
        shift(torch.tensor([[1, 0, 1, 1, 1, 1]] * 3, dtype=torch.bool))


def test_dropout_follows_the_generator_of_torch() -> None:
    query = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(attend(torch.nn.Identity(), query, query, query, None, dropout=0.5)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_seed_is_drawn_on_the_cpu() -> None:
    """Also where another device is the default, which would be waited for."""
    with torch.device("meta"):
        torch.manual_seed(0)
        found = draw_seed()
    torch.manual_seed(0)
    assert draw_seed() == found


@pytest.mark.parametrize("queries", [1, 2, 3, 5])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_without_a_mask_it_is_as_elsewhere(queries: int, is_causal: bool, biased: bool) -> None:
    """Also where keys go on behind the queries, or queries behind the keys."""
    generator = torch.Generator().manual_seed(0)
    key, value = (torch.randn(2, 2, 3, 4, generator=generator) for _ in range(2))
    query = torch.randn(2, 2, queries, 4, generator=generator)
    distances = torch.arange(3.0) - torch.arange(float(queries))[:, None]
    options = {"position_bias": distances[None, None].expand(1, 2, -1, -1)} if biased else {}
    found, expected = (
        function(torch.nn.Identity(), query, key, value, None, is_causal=is_causal, **options)[0]
        for function in (attend, sdpa_attention_forward)
    )
    torch.testing.assert_close(found, expected)


# Ranges.


def ask(mask: Tensor | None, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"batch_size": 3, "q_length": 6, "kv_length": 6}
    found = make_ranges(**arguments | {"attention_mask": mask} | changes)
    return found if found is None else found[:, 0, :, 0].tolist()


def test_ranges_of_rows() -> None:
    anyhow = {"mask_function": bidirectional_mask_function}
    assert ask(LEFT.bool(), **anyhow) == [[3, 3], [0, 6], [1, 5]]
    assert ask(RIGHT.bool(), **anyhow) == [[0, 3], [0, 6], [0, 5]]
    assert ask(torch.zeros(3, 6, dtype=torch.bool), **anyhow) == [[0, 0]] * 3
    assert ask(RIGHT.bool()) == [[0, 3, 0], [0, 6, 0], [0, 5, 0]]
    # None where nothing is hidden, but not where a mask is asked for.
    for mask in (None, torch.ones(3, 6, dtype=torch.bool)):
        assert ask(mask) == [[0]] * 3
        assert ask(mask, allow_is_causal_skip=False) == [[0, 6, 0]] * 3
        assert ask(mask, **anyhow) == [[0, 6]] * 3
        assert ask(mask, allow_is_bidirectional_skip=True, **anyhow) is None
    # A cache: one query needs no order, several have a place.
    assert ask(LEFT.bool(), q_length=1, q_offset=5) == [[3, 3], [0, 6], [1, 5]]
    assert ask(None, q_length=1, q_offset=5) is None
    assert ask(None, q_length=2, q_offset=4) == [[0, 6, 4]] * 3
    # A static cache, whose keys go on behind the queries.
    place = torch.tensor(3)
    assert ask(None, q_length=1, q_offset=place) == [[0, 4]] * 3
    assert ask(LEFT[:, :4].bool(), q_length=1, q_offset=place) == [[3, 1], [0, 4], [1, 3]]
    assert ask(LEFT.bool(), q_length=1, q_offset=place) == [[3, 1], [0, 4], [1, 3]]
    assert ask(LEFT[:, :4].bool(), q_length=2, q_offset=place - 1) == [
        [3, 1, 2, 2], [0, 4, 2, 2], [1, 3, 2, 2],
    ]  # fmt: skip


def test_what_ranges_cannot_say() -> None:
    hole = torch.tensor([[1, 1, 1], [1, 0, 1]], dtype=torch.bool)
    with pytest.raises(ValueError, match=r"in one run in each row: .*; row 1 has a hole"):
        make_ranges(2, 3, 3, attention_mask=hole)
    with pytest.raises(ValueError, match=r"the shape \[batch, tokens\]: got \[3, 6, 6\]"):
        ask(torch.ones(3, 6, 6).tril().bool())
    with pytest.raises(ValueError, match="takes causal order or none, and padding: a sliding"):
        ask(None, mask_function=sliding_window_causal_mask_function(2))
    with pytest.raises(ValueError, match="keys must start at place 0"):
        ask(None, kv_offset=2)
    model = make_model("llama", "lmcore")
    ids = make_inputs("llama", None)["input_ids"]
    packed = torch.tensor([0, 1, 2, 0, 1, 2]).expand(3, 6)
    with pytest.raises(ValueError, match="packed sequences"):
        model(ids, position_ids=packed, use_cache=False)
    dense = torch.ones(3, 1, 6, 6, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"no dense mask: got torch.bool \[3, 1, 6, 6\]"):
        model(ids, attention_mask=dense)
    config = transformers.MistralConfig(
        **SIZES, num_key_value_heads=2, sliding_window=3, attn_implementation="lmcore"
    )
    with pytest.raises(ValueError, match="a sliding window"):
        transformers.MistralModel(config)(ids)
    with pytest.raises(ValueError, match="another mask function"):
        create_causal_mask(
            model.config, torch.ones(3, 6, 1), None, None, or_mask_function=lambda *_: True
        )


@pytest.mark.parametrize("mask", [None, LEFT], ids=["none", "left"])
@pytest.mark.parametrize("length", [2, 3, 6])
def test_attention_of_a_models_own_gets_no_ranges(length: int, mask: Tensor | None) -> None:
    """It would see later tokens, or add starts and lengths to its scores where sizes meet."""
    config = transformers.GPTNeoXJapaneseConfig(
        vocab_size=19, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_multiple_size=1, use_cache=False, attn_implementation="lmcore",
    )  # fmt: skip
    inputs = make_inputs("", mask)
    inputs = {name: tensor[:, :length] for name, tensor in inputs.items()}
    with pytest.raises(RuntimeError, match=rf"size of tensor a \({length}\) must match"):
        transformers.GPTNeoXJapaneseModel(config)(**inputs)


@pytest.mark.parametrize("kind", ["bert", "t5"])
@pytest.mark.parametrize("size", [5, 7])
def test_a_mask_of_other_tokens(kind: str, size: int) -> None:
    mask = torch.ones(3, size, dtype=torch.long)
    mask[0, :2] = 0
    with pytest.raises(ValueError, match=f"must cover the 6 keys: got {size}"):
        make_model(kind, "lmcore")(**make_inputs(kind, None) | {"attention_mask": mask})


def test_a_gpu_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the device itself ends the work; on a CPU the same assertion raises at once."""
    monkeypatch.setattr(module, "_can_ask", lambda tensor: False)
    assert ask(LEFT.bool()) == [[3, 3, 0], [0, 6, 0], [1, 5, 0]]
    assert ask(torch.ones(3, 6, dtype=torch.bool)) == [[0, 6, 0]] * 3
    hole = torch.tensor([[1, 1, 1], [1, 0, 1]], dtype=torch.bool)
    with pytest.raises(RuntimeError, match="in one run in each row"):
        make_ranges(2, 3, 3, attention_mask=hole)
    names: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        make_ranges(2, 3, 6, 3, attention_mask=hole[:, :1])
        make_ranges(2, 3, 6, 1, attention_mask=hole[:, :1])
    # A number or a tensor of the host's, which is copied to the device.
    assert names
    assert not {name for name in names if "lift_fresh" in name or "scalar_dense" in name}
    x, bias = torch.ones(2, 1, 2, 2), torch.tensor([[[[0.0, 1.0], [2.0, 1.0]]]])
    with pytest.raises(RuntimeError, match="distance of query and key alone"):
        attend(torch.nn.Identity(), x, x, x, None, position_bias=bias)


@pytest.mark.parametrize("way", ["core", "reference"])
def test_half_precision(way: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(3, heads, 6, 8, generator=generator).bfloat16() for heads in (4, 2, 2)
    )
    mask = make_ranges(3, 6, 6, attention_mask=RIGHT.bool())
    with use(way):
        found, _ = attend(torch.nn.Identity(), query, key, value, mask)
    seen = torch.ones(6, 6).tril().bool() & RIGHT.bool()[:, None, None]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), seen, enable_gqa=True
    )
    # The result is rounded to bfloat16 itself: half a place of it besides.
    torch.testing.assert_close(found.float(), expected.transpose(1, 2), atol=2e-3, rtol=2**-7)


def test_what_the_attention_has_not() -> None:
    x = torch.ones(2, 1, 3, 2)
    for name, value, other in (
        ("softcap", 3.0, "eager"), ("s_aux", x, "eager"), ("sinks", x, "eager"),
        ("output_attentions", True, "eager"), ("indices", x, "sdpa"), ("block_indices", x, "sdpa"),
        ("cu_seq_lens_q", x, "flash_attention_2"), ("cu_seq_lens_k", x, "flash_attention_2"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f'"lmcore" has no {name}: "{other}"'):
            attend(torch.nn.Identity(), x, x, x, None, **{name: value})
    with pytest.raises(ValueError, match="3 keys are more than the sliding_window of 2"):
        attend(torch.nn.Identity(), x, x, x, None, sliding_window=2)
    attend(torch.nn.Identity(), x, x, x, None, sliding_window=3, softcap=None, is_causal=True)
    # Models hand on what they are called with.
    lengths = torch.tensor([0, 3, 6], dtype=torch.int32)
    with pytest.raises(ValueError, match="has no cu_seq_lens_q"):
        make_model("llama", "lmcore")(torch.ones(1, 6, dtype=torch.long), cu_seq_lens_q=lengths)
    bias = torch.zeros(1, 1, 3, 3)
    bias[0, 0, 1, 1] = 1.0
    with pytest.raises(ValueError, match="distance of query and key alone"):
        attend(torch.nn.Identity(), x, x, x, None, position_bias=bias)
    with pytest.raises(ValueError, match="that of all rows"):
        attend(torch.nn.Identity(), x, x, x, None, position_bias=bias.expand(2, 1, 3, 3))


# The registration.


@pytest.mark.parametrize("system", ["openba", "diffusion", "recsys"])
def test_systems_register_it(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both registries: with the first alone, padding would be attended to, in silence."""
    interfaces = (transformers.AttentionInterface, transformers.AttentionMaskInterface)
    for interface in interfaces:
        monkeypatch.delitem(interface._global_mapping, "lmcore")
    importlib.reload(importlib.import_module(f"lmcore.{system}"))
    for interface, function in zip(interfaces, (attend, make_ranges), strict=True):
        assert interface()["lmcore"] is function


def test_it_is_registered_where_transformers_comes_later() -> None:
    code = (
        "import lmcore.openba, sys; assert 'transformers.masking_utils' not in sys.modules\n"
        "from transformers import AttentionInterface, AttentionMaskInterface\n"
        "print('lmcore' in AttentionInterface(), 'lmcore' in AttentionMaskInterface())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "True True\n"
