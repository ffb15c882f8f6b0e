"""The loss of a run's steps, as its settings choose it."""

from __future__ import annotations

import torch
from torch import Tensor

from lmcore.ops.negatives import SequenceSampler
from lmcore.recsys.objective import Counts, find_gbce_beta, ufn_loss
from lmcore.recsys.recipes import TrainConfig
from lmcore.recsys.softmax import LogQ, catalogue_loss, sampled_softmax_loss


class StepLoss:
    """Returns the loss of packed positions, without the norm of the table.

    Shapes: P packed positions, N negatives, H hidden size, I items, R reversed negatives.

    Args:
        config: the settings; `loss` says which one.
        sampler: what draws the negatives.
        item_count: items of the catalogue, I.
        device: of the batches.

    Example:
        >>> sampler = SequenceSampler([0, 3], [1, 2, 3], 9, negative_count=1)
        >>> loss = StepLoss(TrainConfig(negatives=1), sampler, 9, torch.device("cpu"))
        >>> counts = Counts(entries=2, positives=1, reversed=0)
        >>> items = torch.tensor([1]), torch.tensor([3]), torch.tensor([[7]])
        >>> loss.of_logits(torch.zeros(1, 2), *items, counts=counts)
        tensor(1.3863)
    """

    def __init__(
        self, config: TrainConfig, sampler: SequenceSampler, item_count: int, device: torch.device
    ) -> None:
        self.config = config
        self._beta = 1.0
        if config.loss == "gbce":
            self._beta = find_gbce_beta(config.negatives, item_count, config.gbce_t)
        self._log_q: LogQ | None = None
        if config.loss == "sampled_softmax" and config.log_q != "none":
            self._log_q = LogQ(sampler.draw_weights(), kind=config.log_q, device=device)

    @property
    def takes_logits(self) -> bool:
        """Whether it is made of the logits of negatives, else of the features alone."""
        return self.config.loss != "cross_entropy"

    def of_logits(
        self,
        logits: Tensor,
        users: Tensor,
        positives: Tensor,
        negatives: Tensor,
        *,
        counts: Counts,
        reversed_indices: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss, a scalar, where `takes_logits`.

        Args:
            logits: `[P, 1 + N]`.
            users: `[P]` integers, from 1: whose positions they are.
            positives: `[P]` integers.
            negatives: `[P, N]` integers.
            counts: what divides the sums, of all processes together.
            reversed_indices: `[R]` int64, `position * N + slot` of the reversed negatives.
            teacher_logits: `[R]`, what the teacher gives for them.

        Raises:
            ValueError: shapes do not fit.
        """
        config = self.config
        if config.loss != "sampled_softmax":
            loss = ufn_loss(
                logits,
                reversed_indices=reversed_indices,
                teacher_logits=teacher_logits,
                alpha=config.alpha,
                beta=self._beta,
                normalization=config.normalization,
                counts=counts,
            )
            return loss.total
        log_q = None
        if self._log_q is not None:
            log_q = self._log_q.of_batch(users, positives, negatives, reversed_indices)
        return sampled_softmax_loss(
            logits,
            log_q=log_q,
            reversed_indices=reversed_indices,
            temperature=config.temperature,
            positions=counts.positions,
        )

    def of_features(
        self, features: Tensor, item_emb: Tensor, positives: Tensor, *, counts: Counts
    ) -> Tensor:
        """Returns the loss, a scalar, where not `takes_logits`.

        Args:
            features: `[P, H]`.
            item_emb: `[I + 1, H]`.
            positives: `[P]` integers.
            counts: what divides the sums, of all processes together.

        Raises:
            ValueError: shapes do not fit.
        """
        return catalogue_loss(
            features,
            item_emb,
            positives,
            temperature=self.config.temperature,
            positions=counts.positions,
        )
