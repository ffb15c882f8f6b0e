"""The contrastive term of whole models, against the authors' way written out row by row."""

from typing import Any

import pytest
import torch
from torch import Tensor

import tiny_chains
from lmcore.detox.anchors import Anchors, contrast, evaluating, find_states, sample_anchors
from lmcore.detox.chain_collator import ChainCollator
from lmcore.detox.recipes import ContrastiveConfig
from lmcore.detox.token_sampling import draw_noise
from lmcore.training.lora import LoraConfig
from lmcore.training.models import add_lora

ROWS = tiny_chains.make_rows(5)  # with 2, 1, 3, 0 and 2 toxic continuations
KINDS = ["gpt2", "t5"]


def make(kind: str, dropout: float = 0.0) -> tuple[Any, Any, dict[str, Tensor]]:
    words = tiny_chains.make_words()
    maker: Any = {"gpt2": tiny_chains.make_gpt2, "t5": tiny_chains.make_t5}[kind]
    model = maker(words, dropout)
    collator = ChainCollator(words, model)
    return model, words, collator.pad(item for item in collator.encode(ROWS) if item)


def sample(model: Any, words: Any, batch: dict[str, Tensor], **options: Any) -> Anchors:
    config = ContrastiveConfig(**options)
    noise = draw_noise(5, 227, range(len(ROWS)), config.anchor_tokens)  # type: ignore[arg-type]
    ends = {"pad": words.pad_token_id, "end": words.eos_token_id}
    return sample_anchors(model, batch, noise, config, **ends)


def contrast_as_released(model: Any, batch: dict[str, Tensor], anchors: Anchors) -> list[float]:
    """`GPT2LMHeadCLModel.forward`: groups of five rows, of which zeros are none."""
    losses = []
    for row in range(len(ROWS)):
        group = torch.zeros(5, 24, dtype=torch.long)
        read = torch.zeros(5, 24, dtype=torch.long)
        group[0], read[0] = anchors.ids[row], anchors.mask[row]
        for index in range(batch["continuation_ids"].shape[1]):
            if batch["continuation_mask"][row, index].any():
                group[index + 1] = batch["continuation_ids"][row, index]
                read[index + 1] = batch["continuation_mask"][row, index]
        count = int((group != 0).any(1).sum())
        if count <= 2:
            continue
        found = [
            model.transformer(input_ids=group[i : i + 1], attention_mask=read[i : i + 1])
            .last_hidden_state[0]
            .mean(0)
            for i in range(count)
        ]
        scores = torch.stack([
            torch.cosine_similarity(found[0], other, dim=0).exp() for other in found[1:]
        ])  # fmt: skip
        losses.append(-(scores[0] / scores.sum()).log().item())
    return losses


def test_the_released_term() -> None:
    model, words, batch = make("gpt2")
    model.eval()
    anchors = sample(model, words, batch)
    expected = contrast_as_released(model, batch, anchors)
    assert len(expected) == 4
    found = contrast(model, batch, anchors, ContrastiveConfig(pooling="released"))
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    corrected = contrast(model, batch, anchors, ContrastiveConfig())
    assert (corrected - found).abs().max() > 1e-4


def test_the_released_readers_lose_the_term() -> None:
    """They look under another key than they write: an own sample and a text of nothing are left."""
    model, words, batch = make("gpt2")
    lost = [row | {"generation": ""} for row in ROWS]
    ids = torch.zeros(len(lost), 4, 24, dtype=torch.long)
    for place, row in enumerate(lost):
        text = words(row["generation"], add_special_tokens=False)["input_ids"] or [1]
        ids[place, 0, : len(text)] = torch.tensor(text)
    theirs = {**batch, "continuation_ids": ids, "continuation_mask": (ids != 0).long()}
    anchors = sample(model, words, batch)
    assert contrast_as_released(model, theirs, anchors) == []
    assert len(contrast(model, batch, anchors, ContrastiveConfig())) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["corrected", "released"])
def test_one_pass_is_many(kind: str, pooling: Any) -> None:
    """Neither other rows nor padding change a group's term; padding does in the released mean."""
    model, words, batch = make(kind)
    model.eval()
    anchors = sample(model, words, batch)
    config = ContrastiveConfig(pooling=pooling)
    together = contrast(model, batch, anchors, config)
    alone = []
    for row in (0, 1, 2, 4):
        part = {name: value[row : row + 1] for name, value in batch.items()}
        own = Anchors(anchors.ids[row : row + 1], anchors.mask[row : row + 1])
        alone.append(contrast(model, part, own, config).item())
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    width = max(int(anchors.mask.sum(1).max()), int(batch["continuation_mask"].sum(2).max()))
    shorter = {
        n: v[..., :width] if n.startswith("continuation") else v for n, v in batch.items()
    }  # fmt: skip
    cut = Anchors(anchors.ids[:, :width], anchors.mask[:, :width])
    difference = (contrast(model, shorter, cut, config) - together).abs().max()
    assert width == 24 or (difference > 1e-5) == (pooling == "released")


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_before_the_head(kind: str) -> None:
    model, _, batch = make(kind)
    model.eval()
    ids, mask = batch["continuation_ids"][:, 0], batch["continuation_mask"][:, 0]
    source = None
    if kind == "t5":
        source = batch["input_ids"], batch["attention_mask"]
        logits = model(
            input_ids=source[0], attention_mask=source[1], decoder_input_ids=ids,
            decoder_attention_mask=mask,
        ).logits  # fmt: skip
    else:
        logits = model(input_ids=ids, attention_mask=mask).logits
    states = find_states(model, ids, mask, source)
    scale = model.model_dim**-0.5 if kind == "t5" and model.config.tie_word_embeddings else 1
    assert torch.allclose(model.lm_head(states * scale), logits, atol=1e-5)
    adapted = add_lora(model, LoraConfig(rank=2))
    assert torch.allclose(find_states(adapted, ids, mask, source), states, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_anchors_go_on_behind_their_templates(kind: str) -> None:
    """Each is what the model samples for its row alone, and training goes on as it was."""
    model, words, batch = make(kind, dropout=0.2)
    model.train()
    model.get_input_embeddings().eval()
    before = torch.random.get_rng_state()
    anchors = sample(model, words, batch, anchor_tokens=6)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    assert not model.get_input_embeddings().training
    assert torch.equal(sample(model, words, batch, anchor_tokens=6).ids, anchors.ids)
    assert bool((anchors.mask.sum(1) >= 1).all())
    assert bool((anchors.mask.sum(1) <= 6).all())
    config = ContrastiveConfig(anchor_tokens=6)
    for row in range(5):
        part = {name: value[row : row + 1] for name, value in batch.items()}
        # Without the padding that its neighbours need.
        for name in ("template_ids", "template_mask"):
            part[name] = part[name][:, batch["template_mask"][row].bool()]
        noise = draw_noise(5, 227, [row], 6)
        ends = {"pad": words.pad_token_id, "end": words.eos_token_id}
        own = sample_anchors(model, part, noise, config, **ends)
        assert torch.equal(own.ids[0], anchors.ids[row])
    with pytest.raises(ValueError, match=r"noise must be \[5, 6\]: got \[5, 3\]"):
        sample_anchors(model, batch, draw_noise(5, 227, range(5), 3), config, **ends)  # type: ignore[arg-type]


def test_an_end_is_part_of_an_anchor() -> None:
    model, words, batch = make("gpt2")
    with torch.no_grad():  # so that the end is all that is ever likely
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(model.lm_head.weight[words.eos_token_id] * 1e4)
    anchors = sample(model, words, batch)
    assert anchors.mask.sum(1).tolist() == [1] * 5
    assert anchors.ids[:, 0].tolist() == [words.eos_token_id] * 5
    assert (anchors.ids[:, 1:] == words.pad_token_id).all()
    assert contrast(model, batch, anchors, ContrastiveConfig()).isfinite().all()


def test_an_error_within_gives_the_mode_back() -> None:
    model, _, _ = make("gpt2")
    model.train()
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert model.training
