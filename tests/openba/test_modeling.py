"""What the model computes: as the authors' code, and as it is written down."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForSeq2SeqLM

from lmcore.openba import (
    OpenBAConfig,
    OpenBAEncoderModel,
    OpenBAForConditionalGeneration,
    OpenBAModel,
)
from lmcore.openba.attention import make_rotation, place
from tiny_openba import define_logits, make_batch, make_config, make_model

CASES = ["untied_bias", "untied_nobias"]
IMPLEMENTATIONS = ["eager", "sdpa", "lmcore"]

# Released configurations: depths, hidden size, heads, size that the inner layer follows from, its
# rule, vocabulary, and parameters with the embedding counted once.
RELEASED: dict[str, tuple[int, int, int, int, int, bool, int, int]] = {
    "V1": (12, 36, 4096, 40, 16384, True, 250368, 14_567_703_040),
    "V1-Code": (12, 36, 4096, 40, 16384, True, 250880, 14_569_800_704),
    "V2 stage 1": (10, 30, 4096, 40, 11008, False, 250368, 12_310_714_880),
    "V2 stage 2": (8, 27, 4096, 40, 11008, False, 250368, 10_963_032_576),
    "V2 stage 3": (8, 24, 4096, 40, 11008, False, 250368, 10_053_726_720),
    "V2 stage 4": (8, 24, 2560, 20, 6912, False, 250240, 3_808_598_400),
    "V2 stage 5": (8, 24, 2560, 20, 6912, False, 250368, 3_808_926_208),
}


def largest(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).detach().abs().max())


# Golden: the authors' code.


@pytest.fixture(params=[(case, name) for case in CASES for name in IMPLEMENTATIONS], ids="-".join)
def golden(request: Any, golden_dir: Path) -> tuple[OpenBAForConditionalGeneration, dict[str, Any]]:
    case, implementation = request.param
    folder = golden_dir / "openba" / case
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation=implementation)
    with np.load(folder / "io.npz") as file:
        return model, {name: torch.from_numpy(file[name]) for name in file.files}


@torch.no_grad()
def test_golden_outputs(golden: tuple[OpenBAForConditionalGeneration, dict[str, Any]]) -> None:
    model, io = golden
    ids, mask = io["input_ids"], io["attention_mask"]
    output = model(ids, mask, labels=io["labels"], output_hidden_states=True)
    assert largest(output.logits, io["logits"]) < 1e-4
    assert largest(output.loss, io["loss"].reshape(())) < 1e-5
    assert largest(output.encoder_last_hidden_state, io["encoder_last_hidden_state"]) < 1e-4
    assert largest(torch.stack(output.encoder_hidden_states), io["encoder_hidden_states"]) < 1e-4
    assert largest(torch.stack(output.decoder_hidden_states), io["decoder_hidden_states"]) < 1e-4
    other = model(ids, mask, decoder_input_ids=io["decoder_input_ids2"])
    assert largest(other.logits, io["logits2"]) < 1e-4
    assert sum(p.numel() for p in model.parameters()) == int(io["num_params"])


@pytest.mark.parametrize(("name", "beams"), [("greedy", 1), ("beam4", 4)])
def test_golden_tokens(
    golden: tuple[OpenBAForConditionalGeneration, dict[str, Any]], name: str, beams: int
) -> None:
    model, io = golden
    for options in ({}, {"use_cache": False}, {"cache_implementation": "static"}):
        tokens = model.generate(
            io["input_ids"],
            attention_mask=io["attention_mask"],
            max_new_tokens=io[name].shape[1] - 1,
            num_beams=beams,
            do_sample=False,
            **options,
        )
        assert tokens.tolist() == io[name].tolist()


# Against the definition.


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("tied", [False, True])
def test_the_definition(implementation: str, tied: bool) -> None:
    model = make_model(tie_word_embeddings=tied, attn_implementation=implementation)
    batch = make_batch()
    target = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    logits = model(batch["input_ids"], batch["attention_mask"], target).logits
    mask = batch["attention_mask"].bool()
    assert largest(logits, define_logits(model, batch["input_ids"], target, mask)) < 1e-4
    assert (model.lm_head.weight is model.encoder.embed_tokens.weight) == tied


def test_the_layout_within_heads_matters() -> None:
    """A permutation of the rows of `qkv` from blocks of all heads is another model."""
    model, batch = make_model(), make_batch()
    before = model(**batch).logits
    with torch.no_grad():
        for block in model.encoder.block:
            weight = block.self_attn.qkv.weight
            weight.copy_(weight.view(3, 4, 12, -1).transpose(0, 1).reshape(weight.shape))
    assert largest(before, model(**batch).logits) > 0.01


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_row_that_is_hidden_wholly_is_the_mean(implementation: str) -> None:
    """A boolean mask in SDPA would give zeros, and an additive one of -inf NaN."""
    model, batch = make_model(attn_implementation=implementation), make_batch()
    mask = batch["attention_mask"]
    mask[1] = 0
    target = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    logits = model(batch["input_ids"], mask, target).logits
    defined = define_logits(model, batch["input_ids"], target, mask.bool())
    assert largest(logits, defined) < 1e-4
    # Padding on the left hides all that a target's first tokens may see.
    target_mask = torch.ones_like(target)
    target_mask[2, :3] = 0
    logits = model(batch["input_ids"], mask, target, target_mask).logits
    defined = define_logits(model, batch["input_ids"], target, mask.bool(), target_mask.bool())
    if implementation == "lmcore":  # gives zeros to padding itself
        logits, defined = logits[target_mask.bool()], defined[target_mask.bool()]
    assert largest(logits, defined) < 1e-4


def test_lengths_compute_what_sdpa_does() -> None:
    """Also gradients, with padding on either side of the target."""
    found = []
    for implementation in ("sdpa", "lmcore"):
        model, batch = make_model(attn_implementation=implementation), make_batch()
        target = model.prepare_decoder_input_ids_from_labels(batch.pop("labels"))
        target_mask = torch.ones_like(target)
        target_mask[1, :3] = target_mask[2, 5:] = 0
        logits = model(
            **batch, decoder_input_ids=target, decoder_attention_mask=target_mask
        ).logits[target_mask.bool()]
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
        (logits * weights).mean().backward()
        found.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for expected, own in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_hidden_rows_are_finite_in_half_precision(implementation: str, dtype: torch.dtype) -> None:
    model, batch = make_model(attn_implementation=implementation).to(dtype), make_batch()
    batch["attention_mask"][:2] = 0
    output = model(**batch)
    assert output.logits.isfinite().all()
    assert output.logits.dtype == torch.float32
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_masks_of_other_kinds(implementation: str) -> None:
    model, batch = make_model(attn_implementation=implementation), make_batch()
    ids, mask = batch["input_ids"], batch["attention_mask"]
    target = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    plain = model(ids, mask, target).logits
    # Visible where at least 0.5.
    assert torch.equal(model(ids, mask * 0.6, target).logits, plain)
    assert largest(model(ids, torch.full_like(mask, 0.4, dtype=torch.float), target).logits, plain)
    # Three dimensions are taken as they are: here the target is read in both directions.
    free = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.7
    free[0, 2] = False
    if implementation == "lmcore":
        with pytest.raises(ValueError, match=r"takes an attention_mask .*, and no dense mask"):
            model(ids, mask, target, free)
        return
    for given in (free, free.long(), free.float(), free[:, None]):
        logits = model(ids, mask, target, given).logits
        assert largest(logits, define_logits(model, ids, target, mask.bool(), free)) < 1e-4


def test_masks_of_other_shapes_are_refused() -> None:
    model, batch = make_model(), make_batch()
    ids, labels = batch["input_ids"], batch["labels"]
    with pytest.raises(ValueError, match=r"the shape \[3, 9\] of the source: got \[3, 8\]"):
        model(ids, batch["attention_mask"][:, 1:], labels=labels)
    with pytest.raises(ValueError, match=r"attention_mask must have the shape"):
        model(ids, batch["attention_mask"][None], labels=labels)
    with pytest.raises(ValueError, match=r"must cover the \[3, 7\] target tokens: got \[3, 6\]"):
        model(ids, decoder_attention_mask=torch.ones(3, 6), labels=labels)
    with pytest.raises(ValueError, match="give decoder_input_ids or decoder_inputs_embeds"):
        model(ids)
    with pytest.raises(ValueError, match="give input_ids or inputs_embeds"):
        model(labels=labels)
    with pytest.raises(IndexError):
        model(ids + 60, labels=labels)


# Positions.


def pad_left(batch: dict[str, Any]) -> dict[str, Any]:
    """The same sources with their padding on the left."""
    ids, mask = torch.zeros_like(batch["input_ids"]), torch.zeros_like(batch["attention_mask"])
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        ids[row, ids.shape[1] - length :] = batch["input_ids"][row, :length]
        mask[row, ids.shape[1] - length :] = 1
    return {**batch, "input_ids": ids, "attention_mask": mask}


def test_padding_on_the_left_changes_nothing() -> None:
    """Rotary attention sees differences of positions alone, whether they are shifted or not."""
    right = make_batch()
    left = pad_left(right)
    plain, shifting = make_model(), make_model(shift_positions=True)
    same = plain(**right).logits
    assert largest(shifting(**right).logits, same) == 0
    assert largest(shifting(**left).logits, same) < 1e-4
    assert largest(plain(**left).logits, same) < 1e-4
    target = plain.prepare_decoder_input_ids_from_labels(left["labels"])
    defined = define_logits(plain, left["input_ids"], target, left["attention_mask"].bool())
    assert largest(plain(**left).logits, defined) < 1e-4


def test_shifted_positions_start_at_the_first_visible_token() -> None:
    mask = torch.tensor([[0, 0, 1, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
    device = mask.device
    shifted = place(5, 0, mask, shift=True, device=device)
    assert shifted.tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]]
    assert place(2, 3, mask, shift=True, device=device).tolist() == [[1, 2], [3, 4], [0, 0]]
    assert place(2, torch.tensor(3), mask, shift=False, device=device).tolist() == [[3, 4]]
    model = make_model(shift_positions=True)
    seen: list[Tensor] = []
    model.encoder.block[0].register_forward_pre_hook(
        lambda module, args: seen.append(args[2].cosines)
    )
    model.encoder(torch.ones(3, 5, dtype=torch.long), mask)
    assert torch.equal(seen[0], make_rotation(shifted, 12, 10000.0).cosines)


@pytest.mark.parametrize("implementation", [None, "static"])
def test_generation_from_padding_on_the_left(implementation: str | None) -> None:
    """Rows of one batch give the tokens that they give alone, prompts of the decoder included."""
    model = make_model(shift_positions=True)
    batch = pad_left(make_batch())
    prompt = torch.tensor([[0, 7, 8], [0, 0, 9], [0, 5, 6]])
    prompt_mask = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 1]])
    options: dict[str, Any] = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    if implementation:
        options["cache_implementation"] = implementation
    tokens = model.generate(
        batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=prompt,
        decoder_attention_mask=prompt_mask,
        **options,
    )
    for row in range(3):
        alone = model.generate(
            batch["input_ids"][row][batch["attention_mask"][row].bool()][None],
            decoder_input_ids=prompt[row][prompt_mask[row].bool()][None],
            **options,
        )
        assert tokens[row, -6:].tolist() == alone[0, -6:].tolist()


def test_given_positions_are_used() -> None:
    model, batch = make_model(), make_batch()
    places = torch.arange(9).flip(0)[None].expand(3, -1)
    target = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    logits = model(batch["input_ids"], decoder_input_ids=target, position_ids=places).logits
    defined = define_logits(model, batch["input_ids"], target, positions=places)
    assert largest(logits, defined) < 1e-4
    later = torch.arange(5, 12)[None]
    shifted = model(batch["input_ids"], decoder_input_ids=target, decoder_position_ids=later)
    plain = model(batch["input_ids"], decoder_input_ids=target)
    assert largest(shifted.logits, plain.logits) < 1e-4  # rotary positions are relative


def test_a_longer_input_warns_once() -> None:
    model = make_model(max_seq_length=8, decoder_max_seq_length=6)
    batch = make_batch()
    target = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    with pytest.warns(RuntimeWarning) as caught:
        logits = model(**batch).logits
    texts = [str(w.message) for w in caught]
    assert [text.split(" that")[0] for text in texts] == [
        "9 positions are more than the 8 of max_seq_length",
        "7 positions are more than the 6 of decoder_max_seq_length",
    ]
    mask = batch["attention_mask"].bool()
    assert largest(logits, define_logits(model, batch["input_ids"], target, mask)) < 1e-4
    model(**batch)  # warnings are errors in tests


# Parts.


def test_classes_of_parts() -> None:
    model, batch = make_model(), make_batch()
    ids, mask = batch["input_ids"], batch["attention_mask"]
    target = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    states = model(ids, mask, target, output_hidden_states=True)
    names = {name for name in model.state_dict() if not name.startswith("lm_head.")}
    bare = OpenBAModel(model.config).eval()
    bare.load_state_dict({name: model.state_dict()[name] for name in names})
    output = bare(ids, mask, target)
    assert torch.equal(output.last_hidden_state, states.decoder_hidden_states[-1])
    encoder = OpenBAEncoderModel(model.config).eval()
    names = {name for name in names if name.startswith("encoder.")}
    encoder.load_state_dict({name: model.state_dict()[name] for name in names})
    assert torch.equal(encoder(ids, mask).last_hidden_state, states.encoder_last_hidden_state)
    assert type(AutoModel.from_config(make_config())) is OpenBAModel


def test_outputs_that_are_asked_for() -> None:
    model, batch = make_model(attn_implementation="eager"), make_batch()
    output = model(**batch, output_attentions=True, output_hidden_states=True)
    assert [x.shape for x in output.encoder_attentions] == [(3, 4, 9, 9)] * 2
    assert [x.shape for x in output.decoder_attentions] == [(3, 4, 7, 7)] * 3
    assert [x.shape for x in output.cross_attentions] == [(3, 4, 7, 9)] * 3
    assert len(output.encoder_hidden_states) == 3
    assert len(output.decoder_hidden_states) == 4
    assert output.cache is None  # labels train
    for weights in output.cross_attentions:
        assert largest(weights.sum(-1), torch.ones(3, 4, 7)) < 1e-5
    first, *_ = model(**batch, return_dict=False)
    assert first.ndim == 0


def test_the_loss_leaves_out_labels_and_takes_a_count() -> None:
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        output = model(**batch)
    labels = batch["labels"]
    kept = labels != -100
    logs = output.logits.log_softmax(-1)[kept]
    picked = logs.gather(1, labels[kept][:, None])
    assert float((output.loss + picked.mean()).abs()) < 1e-5
    counted = model(**batch, num_items_in_batch=torch.tensor(50)).loss.detach()
    assert float((counted + picked.sum() / 50).abs()) < 1e-5


def test_logits_of_some_positions() -> None:
    model, batch = make_model(), make_batch()
    ids, mask = batch["input_ids"], batch["attention_mask"]
    target = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    logits = model(ids, mask, target).logits
    last = model(ids, mask, target, logits_to_keep=1).logits
    assert largest(last, logits[:, -1:]) < 1e-5
    assert model(ids, mask, target).cache is not None


def test_attention_can_be_exchanged() -> None:
    model, batch = make_model(attn_implementation="sdpa"), make_batch()
    logits = model(**batch).logits
    model.set_attn_implementation("eager")
    assert model.decoder.block[0].self_attn.config._attn_implementation == "eager"
    assert largest(model(**batch).logits, logits) < 1e-4


# Of transformers' own call, and of flex attention that is not compiled, which takes minutes here.
@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@torch.no_grad()
@torch.compiler.set_stance("force_eager")
def test_flex_attention_on_a_cpu() -> None:
    model, batch = make_model(attn_implementation="flex_attention"), make_batch()
    batch["attention_mask"][1] = 0
    eager = make_model(attn_implementation="eager")
    assert largest(model(**batch).logits, eager(**batch).logits) < 1e-4
    ids, mask = batch["input_ids"], batch["attention_mask"]
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    tokens = model.generate(ids, attention_mask=mask, **options)
    assert tokens.tolist() == eager.generate(ids, attention_mask=mask, **options).tolist()


def test_resizing_keeps_an_untied_head() -> None:
    model, batch = make_model(), make_batch()
    logits = model(**batch).logits
    model.resize_token_embeddings(80, mean_resizing=False)
    assert model.lm_head.weight is not model.encoder.embed_tokens.weight
    assert largest(model(**batch).logits[..., :61], logits) < 1e-5
    assert model.lm_head.bias.shape == (80,)
    model.resize_token_embeddings(50)
    batch = {name: value.clamp(max=49) for name, value in batch.items()}
    assert model(**batch).logits.shape[-1] == 50


# Starting weights and sizes.


def test_weights_start_as_in_pretraining() -> None:
    torch.manual_seed(0)
    model = OpenBAForConditionalGeneration(
        make_config(hidden_size=256, ffn_hidden_size=512, vocab_size=1000, initializer_factor=2.0)
    )
    spread = 2.0 * 0.02
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "layernorm" in name:
            assert (parameter == 1).all(), name
        else:
            depth = 2 if name.startswith("encoder") else 3
            outputs = name.endswith((".o.weight", "fc_out.weight"))
            wanted = spread / (2 * depth) ** 0.5 if outputs else spread
            assert float(parameter.detach().std()) == pytest.approx(wanted, rel=0.03), name


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_to_the_byte(name: str) -> None:
    encoder, decoder, hidden, heads, ffn, rule, vocabulary, count = RELEASED[name]
    config = OpenBAConfig(
        vocab_size=vocabulary, hidden_size=hidden, kv_channels=128, num_heads=heads,
        ffn_hidden_size=ffn, swiglu_rule=rule, num_layers=encoder, num_decoder_layers=decoder,
        add_qkv_bias=True, add_lm_head_bias=True, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = OpenBAForConditionalGeneration(config).half()
    twice = model.lm_head.weight.numel()
    assert sum(p.numel() for p in model.parameters()) == count + twice
    stored = sum(p.numel() * p.element_size() for p in model.parameters()) - 2 * twice
    assert stored == 2 * count
    if name == "V1":
        assert stored == 29_135_406_080
        assert config.inner_size == 11008
        assert config.heads_size == 5120
        assert sum(p.numel() for p in model.encoder.block[0].parameters()) == 219_188_224
        assert sum(p.numel() for p in model.decoder.block[0].parameters()) == 303_101_952
    if name == "V1-Code":
        assert stored == 29_139_601_408
