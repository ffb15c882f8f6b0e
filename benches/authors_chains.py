"""The step of Detox-CoT's `GPT2LMHeadCLModel`, from its description: cross entropy and the term.

Sampling in every step, behind templates that are padded to 250; five rows a group, in one pass with
the graph of the cross entropy; a loop over groups; the mean over padding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHAIN, TEMPLATE, CONTINUATION, NEW = 280, 250, 24, 20


class AuthorsStep:
    """One step of training as the released code does it.

    Args:
        model: a GPT-2; dropout is off after the first sampling, as there.
        optimizer: of its parameters.
        use_cache: whether sampling keeps keys and values.
    """

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer, *, use_cache: bool) -> None:
        self.model, self.optimizer, self.use_cache = model, optimizer, use_cache

    def sample(self, template: Tensor) -> Tensor:
        """Returns `[rows, 24]`: the last 20 ids of what is sampled, and padding."""
        self.model.eval()
        with torch.no_grad():
            ids = self.model.generate(
                input_ids=template, attention_mask=(template != 0).long(), do_sample=True,
                top_p=0.9, top_k=0, max_new_tokens=NEW, min_new_tokens=NEW, pad_token_id=0,
                use_cache=self.use_cache,
            )  # fmt: skip
        return functional.pad(ids[:, -NEW:], (0, CONTINUATION - NEW))

    def __call__(self, input_ids: Tensor, labels: Tensor, template: Tensor, texts: Tensor) -> float:
        """Returns the loss of a step.

        Args:
            input_ids: `[rows, 280]`.
            labels: `[rows, 280]`.
            template: `[rows, 250]`, padded on the left.
            texts: `[rows, 4, 24]`, zeros where there is none.
        """
        self.model.train()
        read = (input_ids != 0).long()
        loss = self.model(input_ids=input_ids, attention_mask=read, labels=labels).loss
        loss = loss + 0.5 * self.contrast(self.sample(template), texts)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def contrast(self, own: Tensor, texts: Tensor) -> Tensor:
        """Returns the mean term of the groups that have more than two rows."""
        rows = torch.cat([own[:, None], texts], 1)
        flat = rows.view(-1, CONTINUATION)
        states = self.model.transformer(
            input_ids=flat, attention_mask=(flat != 0).long()
        ).last_hidden_state.mean(1)
        terms = []
        for group, found in zip(rows, states.view(*rows.shape[:2], -1), strict=True):
            count = int((group != 0).any(1).sum())
            if count > 2:
                scores = functional.cosine_similarity(found[:1], found[1:count]).exp()
                terms.append(-(scores[0] / scores.sum()).log())
        return torch.stack(terms).mean()
