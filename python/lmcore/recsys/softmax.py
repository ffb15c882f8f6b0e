"""Losses that choose the positive among other items: sampled softmax and full cross-entropy.

Shapes: P packed positions, N negatives, H hidden size, I items, R reversed negatives.  Column 0
of the logits is the positive, column 1 + j is negative j.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lmcore.ops.cross_entropy import cross_entropy
from lmcore.ops.negatives import DrawWeights
from lmcore.recsys.objective import among_logits, widen

CORRECTIONS = ("negatives", "all", "none")

# Every position counts: of no id is this the column.
_NO_ITEM = -(2**63)


def sampled_softmax_loss(
    logits: Tensor,
    *,
    log_q: Tensor | None = None,
    reversed_indices: Tensor | None = None,
    temperature: float = 1.0,
    positions: int | None = None,
) -> Tensor:
    """Returns the cross-entropy of each positive among the negatives of its position.

    With s = z / temperature - log_q, and J the columns of the negatives that are not reversed, a
    position has the loss -ln(e^s[0] / (e^s[0] + sum over j in J of e^s[j])).

    A reversed negative is one more positive: it adds such a term with itself in place of column 0
    and the same J, so that no positive stands in the sum of another. A position without a negative
    left has no loss.

    The result is the sum of all terms over the number of positions: as in `ufn_loss`, what is
    reversed does not make the other terms smaller. Adding one number to all s of a position
    changes nothing.

    Source: eSASRec (RecSys 2025), without `log_q`; what is reversed: ours.

    Args:
        logits: `[P, 1 + N]` of any floating type; the loss of halves is computed in float32.
        log_q: what `LogQ.of_batch` returns: `[P, 1 + N]`, or `[P, 1]` for what is taken from each
            negative in J and from no positive; None: nothing.
        reversed_indices: `[R]` int64, `position * N + slot` of the reversed negatives, each once.
        temperature: divides the logits.
        positions: what divides the sum; P by default. Several processes that share a batch hand
            in those of all of them.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not fit, or the temperature is not above 0.

    Example:
        >>> sampled_softmax_loss(torch.zeros(2, 4)).exp()
        tensor(4.)
        >>> log_q = torch.log(torch.tensor([[0.1]]))
        >>> sampled_softmax_loss(torch.zeros(1, 4), log_q=log_q).exp()
        tensor(31.0000)
    """
    _check_temperature(temperature)
    shapes = [] if logits.ndim != 2 else [logits.shape, (len(logits), 1)]
    if not shapes or (log_q is not None and log_q.shape not in shapes):
        other = "none" if log_q is None else list(log_q.shape)
        raise ValueError(
            f"logits must be [P, 1 + N] and log_q [P, 1 + N] or [P, 1]: "
            f"got {list(logits.shape)} and {other}"
        )
    scale = 1 / temperature
    summed: Tensor = _SummedSoftmax.apply(widen(logits), log_q, reversed_indices, scale)
    return summed / max(len(logits) if positions is None else positions, 1)


def catalogue_loss(
    features: Tensor,
    item_emb: Tensor,
    positives: Tensor,
    *,
    temperature: float = 1.0,
    positions: int | None = None,
) -> Tensor:
    """Returns the cross-entropy of the positives among all items, without all logits in memory.

    The other items of a user's history are negatives like all others.

    Args:
        features: `[P, H]`.
        item_emb: `[I + 1, H]`, whose row 0 is padding and takes no part.
        positives: `[P]` integers, from 1.
        temperature: divides the logits.
        positions: what divides the sum; P by default.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not fit, or the temperature is not above 0.
        IndexError: a positive is no item (on a CPU).

    Example:
        >>> catalogue_loss(torch.zeros(1, 2), torch.ones(6, 2), torch.tensor([5])).exp()
        tensor(5.)
    """
    _check_temperature(temperature)
    if temperature != 1:
        features = features / temperature
    summed = cross_entropy(
        features, item_emb[1:], positives.long() - 1, ignore_index=_NO_ITEM, reduction="sum"
    )
    return summed / max(len(features) if positions is None else positions, 1)


class LogQ:
    """What the logits are corrected by for how often each item is drawn.

    The sampler draws negative j of user u with the probability q = w_j / W_u, where W_u is the
    weight of all items outside of her history (`lmcore.ops.negatives.DrawWeights`); q is exact.

    `negatives` takes ln(N q) from each negative and nothing from the positive, which is always
    there and never drawn. The sum in the loss then is an unbiased estimate of that over the
    positive and all items outside of the history; its logarithm, the loss, is biased, the less
    the larger N is. With every item outside of the history as a negative once and equal weights
    it is exact: the cross-entropy of that set. The items of the history stand in full
    cross-entropy's sum and not here.

    `all` takes ln w from every logit, the positive's too. With equal weights nothing changes.
    Which of the 1 + N items is the positive then has the best logits z = ln P(item) + constant at
    any N where weights are equal; else nearly, as an item of weight w would have been rejected in
    another history: what lacks is N ln(1 - w / W), below N w / W.

    Where negatives are mined, those that are shown again stand in slots of drawn ones, and are
    corrected as if they had been drawn: so they weigh as much as a drawn one, not less.

    Source: `negatives`: Khrylchenko et al. (RecSys 2025, arXiv 2507.09331), who show that the
    positive is not to be corrected. `all`: Yi et al. (RecSys 2019), equations 3 to 5.

    Args:
        weights: those of the sampler.
        kind: one of `CORRECTIONS`; `none` corrects nothing.
        device: of the batches.

    Raises:
        ValueError: the kind is unknown.

    Example:
        >>> from lmcore.ops.negatives import SequenceSampler
        >>> weights = SequenceSampler([0, 2], [1, 2], 12, negative_count=5).draw_weights()
        >>> batch = torch.tensor([1]), torch.tensor([2]), torch.tensor([[3, 9, 4, 3, 7]])
        >>> LogQ(weights).of_batch(*batch).exp()
        tensor([[0.5000]])
    """

    def __init__(
        self,
        weights: DrawWeights,
        *,
        kind: str = "negatives",
        device: torch.device | str = "cpu",
    ) -> None:
        if kind not in CORRECTIONS:
            raise ValueError(f"kind must be one of {', '.join(CORRECTIONS)}: got {kind!r}")
        self.kind = kind
        self._is_uniform = bool(len(weights.items)) and float(np.ptp(weights.items)) == 0
        # Row 0 is padding, of which there is none among positives and negatives.
        items = np.concatenate([[0], weights.items]).astype(np.float32)
        users = np.concatenate([[0], weights.users]).astype(np.float32)
        self._items = torch.from_numpy(items).to(device)
        self._users = torch.from_numpy(users).to(device)

    def of_batch(
        self,
        users: Tensor,
        positives: Tensor,
        negatives: Tensor,
        reversed_indices: Tensor | None = None,
    ) -> Tensor | None:
        """Returns what `sampled_softmax_loss` takes from the logits of packed positions.

        Args:
            users: `[P]` integers, from 1: whose positions they are.
            positives: `[P]` integers, from 1.
            negatives: `[P, N]` integers, from 1.
            reversed_indices: `[R]` int64, `position * N + slot`: as positives they are corrected
                as these are.

        Returns:
            `[P, 1 + N]` float32; `[P, 1]` where it is the same for all negatives of a position;
            None where it would change nothing.

        Example:
            >>> from lmcore.ops.negatives import SequenceSampler
            >>> sampler = SequenceSampler([0, 2, 5], [1, 2, 3, 3, 4], 5, distribution="popularity",
            ...                           exponent=1)
            >>> log_q = LogQ(sampler.draw_weights())
            >>> batch = torch.tensor([1]), torch.tensor([2]), torch.tensor([[3, 4]])
            >>> log_q.of_batch(*batch).exp()
            tensor([[1.0000, 1.3333, 0.6667]])
        """
        if self.kind == "none" or (self.kind == "all" and self._is_uniform):
            return None
        if self.kind == "all":
            return self._items[torch.cat([positives[:, None], negatives], 1)]
        # ln N - ln W_u
        rows = math.log(negatives.shape[1]) - self._users[users][:, None]
        if self._is_uniform:
            return rows + self._items[-1]
        found = functional.pad(self._items[negatives] + rows, (1, 0))
        if reversed_indices is not None:
            found.view(-1)[among_logits(found, reversed_indices)] = 0
        return found


class _SummedSoftmax(torch.autograd.Function):
    """The sum of the terms of all positives.

    With r the logarithm of the sum over a position's J, a term is softplus(r - s) for the s of
    its positive. So r is made once for all positives of a position, and is all that is kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        log_q: Tensor | None,
        reversed_indices: Tensor | None,
        scale: float,
    ) -> Tensor:
        scores, rows = _correct(logits, log_q, scale)
        own = scores[:, 0]
        negatives = scores[:, 1:]
        if reversed_indices is not None and len(reversed_indices):
            negatives = negatives.flatten().index_fill(0, reversed_indices, -torch.inf)
            negatives = negatives.view(len(scores), -1)
        rest = negatives.logsumexp(1)
        if rows is not None:
            rest = rest - rows
        # Where no negative is left: finite, so that nothing is taken from infinity.
        rest = rest.clamp(min=torch.finfo(rest.dtype).min)
        summed = functional.softplus(rest - own).sum()
        if reversed_indices is not None and len(reversed_indices):
            turned = scores.take(among_logits(scores, reversed_indices))
            owners = rest[reversed_indices // (logits.shape[1] - 1)]
            summed = summed + functional.softplus(owners - turned).sum()
        ctx.save_for_backward(logits, log_q, reversed_indices, rest)
        ctx.scale = scale
        return summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        logits, log_q, reversed_indices, rest = ctx.saved_tensors
        scores, rows = _correct(logits, log_q, ctx.scale)
        # How far each positive is from probability 1; the negatives share the sum of it.
        shares = (rest - scores[:, 0]).sigmoid()
        own, places = shares, None
        if reversed_indices is not None and len(reversed_indices):
            places = among_logits(logits, reversed_indices)
            owners = reversed_indices // (logits.shape[1] - 1)
            turned = (rest[owners] - scores.take(places)).sigmoid()
            shares = own.index_add(0, owners, turned)
        shifts = rest if rows is None else rest + rows
        slopes = (scores - shifts[:, None]).exp_().mul_(shares[:, None])
        slopes[:, 0] = -own
        if places is not None:
            slopes.view(-1)[places] = -turned
        return slopes.mul_(gradient * ctx.scale), None, None, None


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0: got {temperature}")


def _correct(logits: Tensor, log_q: Tensor | None, scale: float) -> tuple[Tensor, Tensor | None]:
    """Scores, and what is to be taken from all negatives of a position beyond them, `[P]`."""
    scores = logits if scale == 1 else logits * scale
    if log_q is None:
        return scores, None
    if log_q.shape != logits.shape:
        return scores, log_q[:, 0].to(scores.dtype)
    return scores - log_q, None
