"""A model with the loss of chains, for training loops that call `model(**batch)["loss"]`.

`lmcore.detox.train` does without: its anchors are functions of (seed, step).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lmcore.detox.anchors import Anchors, contrast, find_groups, sample_anchors
from lmcore.detox.recipes import ContrastiveConfig
from lmcore.detox.token_sampling import draw_noise
from lmcore.ops.philox import Stream


class ContrastiveModel(nn.Module):
    """Cross entropy on the chain plus the contrastive term, in one forward pass.

    For transformers' `Trainer` and loops of your own, with `ChainCollator` as the collator. In the
    mode of training, anchors are sampled for rows with a toxic continuation; those of a row are
    kept and used again for `config.refresh_every_steps` calls. In the mode of evaluation it is
    cross entropy alone.

    Source: section 4.2 of the specification.

    Args:
        model: of transformers, whole or with LoRA; it is `model` afterwards.
        tokenizer: of the model.
        config: of the term.
        seed: of the anchors.

    Raises:
        ValueError: the tokenizer has no token for padding.

    Example:
        >>> from lmcore.detox.chain_collator import ChainCollator
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["# Text: hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> text = ("# Text: hi # Let's detoxify step by step. # The context is non-toxic. "
        ...     "# Generation: oh #")
        >>> collator = ChainCollator(tokenizer, model)
        >>> batch = collator([{"output": text, "cont_generation": ["oh", "no"]}])
        >>> found = ContrastiveModel(model, tokenizer).train()(**batch)
        >>> bool(found["loss"] > found["cross_entropy"]), found["groups"]
        (True, 1)
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: ContrastiveConfig | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no token for padding: set its pad_token")
        self.model, self.config = model, model.config
        self.contrastive = ContrastiveConfig() if config is None else config
        self.seed, self.calls = seed, 0
        self._ends = {"pad": tokenizer.pad_token_id, "end": tokenizer.eos_token_id}
        # By template: the call in which its anchor was sampled, and the anchor.
        self._known: dict[bytes, tuple[int, Tensor, Tensor]] = {}

    # Trainer takes any `**more` for a promise to divide the loss by the tokens of all its steps.
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        template_ids: Tensor | None = None,
        template_mask: Tensor | None = None,
        continuation_ids: Tensor | None = None,
        continuation_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """Returns `loss`, what it consists of, and how many groups there were.

        Args:
            input_ids: `[rows, source]` int64, as the other tensors of `ChainCollator`.
            attention_mask: `[rows, source]` int64.
            labels: `[rows, target]` int64.
            template_ids: `[rows, template]` int64; without all of these four it is cross entropy
                alone.
            template_mask: `[rows, template]` int64.
            continuation_ids: `[rows, continuations, length]` int64.
            continuation_mask: `[rows, continuations, length]` int64.
        """
        loss = self.model(
            input_ids=input_ids, attention_mask=attention_mask, labels=labels, use_cache=False
        ).loss
        found: dict[str, Any] = {"loss": loss, "cross_entropy": loss.detach(), "groups": 0}
        groups = {
            "template_ids": template_ids, "template_mask": template_mask,
            "continuation_ids": continuation_ids, "continuation_mask": continuation_mask,
        }  # fmt: skip
        given = {name: value for name, value in groups.items() if value is not None}
        weight = self.contrastive.weight
        if not (self.training and weight and len(given) == len(groups)):
            return found
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, **given}
        used = find_groups(batch)
        if not used.any():
            return found
        batch = {name: value[used] for name, value in batch.items()}
        term = contrast(self.model, batch, self._find_anchors(batch), self.contrastive).mean()
        return {
            "loss": loss + weight * term, "cross_entropy": found["cross_entropy"],
            "contrastive": term.detach(), "groups": int(used.sum()),
        }  # fmt: skip

    def _find_anchors(self, batch: dict[str, Tensor]) -> Anchors:
        self.calls += 1
        keys = [ids.cpu().numpy().tobytes() for ids in _trim(batch)]
        least = self.calls - self.contrastive.refresh_every_steps
        stale = [row for row, key in enumerate(keys) if self._known.get(key, (least,))[0] <= least]
        if stale:
            items = [self.calls << 20 | row for row in stale]
            noise = draw_noise(
                self.seed, Stream.CHAIN_ANCHORS, items, self.contrastive.anchor_tokens
            )
            part = {name: value[stale] for name, value in batch.items()}
            new = sample_anchors(self.model, part, noise, self.contrastive, **self._ends)
            for row, ids, mask in zip(stale, new.ids, new.mask, strict=True):
                self._known[keys[row]] = self.calls, ids, mask
        found = [self._known[key] for key in keys]
        return Anchors(torch.stack([f[1] for f in found]), torch.stack([f[2] for f in found]))


def _trim(batch: dict[str, Tensor]) -> list[Tensor]:
    """Templates without their padding."""
    pairs = zip(batch["template_ids"], batch["template_mask"], strict=True)
    return [ids[mask.bool()] for ids, mask in pairs]
