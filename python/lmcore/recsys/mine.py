"""Mining of false negatives in any training loop (UFNRec, the paper's own step).

Shape letters: B batch, L window length, N negatives per position, P valid positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.ops._tensors import is_tensor, to_host
from lmcore.ops.false_negatives import FalseNegativeMemory, Reversed
from lmcore.recsys.injection import Array, Injection
from lmcore.recsys.start import StartRule, StartSwitch

__all__ = ["FalseNegativeMiner", "MinerStats"]

_STATE = ("active", "reversed_count", "withheld_count")


@dataclass(slots=True, frozen=True)
class MinerStats:
    """Sums over a miner's life so far."""

    active: bool
    """Whether mining has started."""
    reversed_count: int
    """Labels that were turned to 1, over all steps."""
    withheld_count: int
    """Labels that `max_reversed_share` left at 0."""
    hard_count: int
    """Hard negatives that are stored now."""
    key_count: int
    """(user, position, item) that were presented again at least once."""
    reversed_key_count: int
    """Those that were above the threshold at least once."""
    evicted_count: int
    """Counts that were given up because of `max_keys`."""
    memory_bytes: int
    """What lists and counts take."""


class FalseNegativeMiner:
    """Finds false negatives while a model trains, and turns their labels.

    A step of any loop: `inject`, forward pass and loss with the labels, optimizer,
    `update_start`, `observe`. Batches are padded (`negatives` of three dimensions) or packed:
    two dimensions, a row for each positive that is not 0, rows of the batch in order, positions
    from left to right. Padding may stand on either side; what is remembered belongs to a user and
    a column of the batch, so a user's items must come at the same columns each time.

    Tensors on the CPU share their memory with the miner. Of tensors elsewhere, the negatives
    are copied to the host and back, and of the logits only one bool per negative crosses.

    Source: UFNRec (arXiv 2208.04116); `lmcore.ops.false_negatives` is what it remembers.

    Args:
        threshold: m; an item presented again more than m times is reversed. None: never, which
            leaves re-presentation alone.
        start: when mining starts, or a switch that something else turns too; None: at once.
        max_reversed_share: at most this share of a batch's negatives is reversed in a step,
            those with the highest counts first, in the authors' order where counts are equal.
            The others keep the label 0, and may be stored again. None: no limit, as published.
        max_keys: bound on the counts kept; see `FalseNegativeMemory`.

    Raises:
        TypeError: an argument has another type.
        ValueError: an argument is out of its range.

    Example:
        >>> miner = FalseNegativeMiner(threshold=0)
        >>> users, positives, negatives = [1], [[5]], np.array([[7, 9]])
        >>> injection = miner.inject(users, positives, negatives)
        >>> miner.observe(users, positives, injection, np.array([[0.0, 1.0, -1.0]]))
        >>> miner.inject(users, positives, np.array([[3, 4]])).labels.tolist()
        [[1.0, 1.0, 0.0]]
    """

    def __init__(
        self,
        *,
        threshold: int | None = 5,
        start: StartRule | StartSwitch | None = None,
        max_reversed_share: float | None = None,
        max_keys: int | None = None,
    ) -> None:
        if not isinstance(max_reversed_share, int | float | None):
            raise TypeError(
                "max_reversed_share must be a number or None: got "
                f"{type(max_reversed_share).__name__}"
            )
        if max_reversed_share is not None and not 0 <= max_reversed_share <= 1:
            raise ValueError(
                f"max_reversed_share must be at least 0 and at most 1: got {max_reversed_share}"
            )
        self.memory = FalseNegativeMemory(threshold=threshold, max_keys=max_keys)
        self.start = start if isinstance(start, StartSwitch) else StartSwitch(start)
        self.max_reversed_share = max_reversed_share
        self._reversed_count = 0
        self._withheld_count = 0

    @property
    def active(self) -> bool:
        """Whether mining has started; it never stops."""
        return self.start.on

    def update_start(self, epoch: int, step: int, epoch_loss_sums: Sequence[float]) -> bool:
        """Returns whether mining has started, after asking the start rule once.

        The authors ask after every optimizer step and before they observe, so that the step in
        which mining starts is already remembered.

        Args:
            epoch: number of the epoch, from 1.
            step: global number of the step that ends now, from 1.
            epoch_loss_sums: loss sums of the finished epochs.

        Raises:
            ValueError: the sums are not those that the rule needs.

        Example:
            >>> from lmcore.recsys.start import StepStart
            >>> miner = FalseNegativeMiner(start=StepStart(2))
            >>> miner.update_start(1, 1, []), miner.update_start(1, 2, []), miner.active
            (False, True, True)
        """
        return self.start.update(epoch, step, epoch_loss_sums)

    def inject(self, users: Array, positives: Array, negatives: Array) -> Injection:
        """Returns the negatives to train on, their labels, and which of them are reversed.

        Args:
            users: `[B]` integers from 1, below 2**24.
            positives: `[B, L]` integers, 0 at padding; L at most 256.
            negatives: `[B, L, N]` or `[P, N]`, int64 or int32, contiguous; an array or a tensor
                on the CPU is written in place. Those at padding are neither read nor written.

        Raises:
            IndexError: a user id is out of its range.
            TypeError: an argument has another type.
            ValueError: another shape.

        Example:
            >>> injection = FalseNegativeMiner().inject([1], [[5]], np.array([[[7, 9]]]))
            >>> injection.labels.tolist(), injection.reversed_count
            ([[[1.0, 0.0, 0.0]]], 0)
        """
        host = to_host(negatives)
        if not isinstance(host, np.ndarray):
            raise TypeError(
                f"negatives must be a numpy array or a torch tensor: got {type(host).__name__}"
            )
        turned = self._inject(to_host(users), to_host(positives), host)
        indices = turned.flat_indices(host.shape[-1])
        if not is_tensor(negatives):
            return Injection(host, indices, turned, host)
        import torch

        device = negatives.device
        written = negatives if device.type == "cpu" else torch.from_numpy(host).to(device)
        return Injection(written, torch.from_numpy(indices).to(device), turned, host)

    def observe(self, users: Array, positives: Array, injection: Injection, logits: Array) -> None:
        """Remembers which negatives scored above their positive; nothing before the start.

        Args:
            users: `[B]` integers, as given to `inject`.
            positives: `[B, L]` integers, as given to `inject`.
            injection: what `inject` returned for this batch.
            logits: `[B, L, 1 + N]` or `[P, 1 + N]`, the positive's first: an array, or a tensor
                of any floating type on any device. At padding they are not read.

        Raises:
            IndexError: an id is out of its range, or the injection is of another batch.
            TypeError: an argument has another type.
            ValueError: another shape, or a logit is NaN.

        Example:
            >>> miner = FalseNegativeMiner()
            >>> injection = miner.inject([1], [[5]], np.array([[7, 9]]))
            >>> miner.observe([1], [[5]], injection, np.array([[0.0, 1.0, 1.0]]))
            >>> miner.stats().hard_count
            2
        """
        if not self.start.on:
            return
        negatives, turned = injection.host_negatives, injection.reversed
        shape = (*negatives.shape[:-1], negatives.shape[-1] + 1)
        if is_tensor(logits) and logits.shape != shape:
            raise ValueError(f"logits must have shape {list(shape)}: got {list(logits.shape)}")
        u, pos, scores = to_host(users), np.asarray(to_host(positives)), _to_scores(logits)
        if negatives.ndim == 3 and _is_left_padded(pos):
            self.memory.observe(u, pos, negatives, scores, turned)
            return
        flat_indices = _flat_indices(u, pos, negatives)
        if negatives.ndim == 3:
            if scores.shape[:-1] != negatives.shape[:-1]:
                raise ValueError(f"logits must have shape {list(shape)}: got {list(scores.shape)}")
            negatives = _as_blocks(pos, negatives)[flat_indices]
            scores = scores[pos != 0]
        self.memory.observe_packed(u, flat_indices, pos.shape[1], negatives, scores, turned)

    def stats(self) -> MinerStats:
        """Returns sums over the miner's life so far.

        Example:
            >>> FalseNegativeMiner().stats().key_count
            0
        """
        return MinerStats(
            active=self.start.on,
            reversed_count=self._reversed_count,
            withheld_count=self._withheld_count,
            hard_count=self.memory.hard_count,
            key_count=self.memory.key_count,
            reversed_key_count=self.memory.reversed_key_count,
            evicted_count=self.memory.evicted_count,
            memory_bytes=self.memory.memory_bytes,
        )

    def mined_pairs(self, threshold: int | None = None) -> NDArray[np.int64]:
        """Returns the (user, item) pairs that this miner takes for false negatives.

        A pair counts if the item was presented again more than `threshold` times at one of the
        user's positions. What `max_keys` made the memory forget is not among them; what
        `max_reversed_share` left at 0 is.

        Args:
            threshold: m; None: the miner's own, above which it reverses.

        Returns:
            `[K, 2]` int64, distinct rows in ascending order; none where both are None.

        Raises:
            ValueError: `threshold` is below 0.

        Example:
            >>> miner = FalseNegativeMiner(threshold=0)
            >>> for _ in range(2):
            ...     injection = miner.inject([1], [[5]], np.array([[7, 9]]))
            ...     miner.observe([1], [[5]], injection, np.array([[0.0, 1.0, -1.0]]))
            >>> miner.mined_pairs().tolist(), miner.mined_pairs(1).tolist()
            ([[1, 7]], [])
        """
        most = self.memory.threshold if threshold is None else threshold
        if most is None:
            return np.zeros((0, 2), dtype=np.int64)
        if most < 0:
            raise ValueError(f"threshold must be at least 0: got {most}")
        state = self.memory.state_dict()
        keys = state["count_keys"][state["counts"] > most]
        width, low = np.uint64(32), np.uint64(2**32 - 1)
        pairs = np.unique(keys >> np.uint64(40) << width | keys & low)
        return np.stack([pairs >> width, pairs & low], axis=1).astype(np.int64)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Returns all that the miner holds, as numpy arrays; settings are not in it.

        Example:
            >>> bool(FalseNegativeMiner().state_dict()["active"])
            True
        """
        stats = asdict(self.stats())
        own = {name: np.array(int(stats[name]), dtype=np.int64) for name in _STATE}
        return own | self.memory.state_dict()

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Replaces all that the miner holds.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: arrays are missing, or are no state, or a count is out of its range.

        Example:
            >>> FalseNegativeMiner().load_state_dict(FalseNegativeMiner().state_dict())
        """
        missing = [name for name in _STATE if name not in state]
        if missing:
            raise ValueError(f"state must hold {', '.join(missing)}")
        counts = [_read_count(name, state[name]) for name in _STATE]
        self.memory.load_state_dict({k: v for k, v in state.items() if k not in _STATE})
        active, self._reversed_count, self._withheld_count = counts
        self.start.on = bool(active)

    def _inject(self, users: Any, positives: Any, negatives: NDArray[Any]) -> Reversed:
        pos = np.asarray(positives)
        if negatives.ndim == 3 and _is_left_padded(pos):
            turned = self.memory.inject(users, pos, negatives)
        else:
            turned = self._inject_packed(users, pos, negatives)
        if self.max_reversed_share is not None and len(turned):
            candidates = np.count_nonzero(pos) * negatives.shape[-1]
            most = int(self.max_reversed_share * candidates)
            if most < len(turned):
                self._withheld_count += len(turned) - most
                highest = np.argsort(-turned.counts.astype(np.int64), kind="stable")[:most]
                turned = turned.select(np.sort(highest))
        self._reversed_count += len(turned)
        return turned

    def _inject_packed(self, users: Any, positives: Any, negatives: NDArray[Any]) -> Reversed:
        flat_indices = _flat_indices(users, positives, negatives)
        length = positives.shape[1]
        if negatives.ndim == 2:
            return self.memory.inject_packed(users, flat_indices, length, negatives)
        # Positions that are not at the right are taken out and put back.
        blocks = _as_blocks(positives, negatives)
        packed = blocks[flat_indices]
        turned = self.memory.inject_packed(users, flat_indices, length, packed)
        blocks[flat_indices] = packed
        return Reversed(turned.coordinates, turned.counts, flat_indices[turned.blocks])


def _read_count(name: str, value: ArrayLike) -> int:
    array = np.asarray(value)
    count = array.item() if array.size == 1 else None
    if not isinstance(count, int):
        raise ValueError(f"{name} must be a whole number: got {value!r:.60}")
    if not 0 <= count < 2**62:
        raise ValueError(f"{name} must be at least 0 and below 2**62: got {count}")
    return count


def _is_left_padded(positives: NDArray[Any]) -> bool:
    """Whether no 0 stands right of an item; of other shapes, for the memory to refuse."""
    valid = np.atleast_1d(positives != 0)
    return not (valid[..., :-1] & ~valid[..., 1:]).any()


def _as_blocks(positives: NDArray[Any], negatives: NDArray[Any]) -> NDArray[Any]:
    """Returns a view `[B * L, N]` of padded negatives."""
    if negatives.shape[:-1] != positives.shape:
        expected = ", ".join([*map(str, positives.shape), "N"])
        raise ValueError(f"negatives must have shape [{expected}]: got {list(negatives.shape)}")
    if not negatives.flags.c_contiguous:
        raise ValueError("negatives must be contiguous: they are written in place")
    return negatives.reshape(-1, negatives.shape[-1])


def _flat_indices(
    users: Any, positives: NDArray[Any], negatives: NDArray[Any]
) -> NDArray[np.int64]:
    if positives.ndim != 2:
        raise ValueError(f"positives must have shape [B, L]: got {list(positives.shape)}")
    if np.shape(users) != positives.shape[:1]:
        raise ValueError(
            f"users must have shape [{len(positives)}], one for each row of positives: got "
            f"{list(np.shape(users))}"
        )
    flat_indices = np.flatnonzero(positives != 0)  # of bools it is several times as fast
    if negatives.ndim == 2 and len(flat_indices) != len(negatives):
        raise ValueError(
            f"packed negatives must have a row for each of the {len(flat_indices)} positives that "
            f"are not 0: got {len(negatives)}"
        )
    return flat_indices


def _to_scores(logits: Array) -> NDArray[Any]:
    """Returns logits of the host as they are, and a mask of others."""
    if not is_tensor(logits):
        return np.asarray(logits)
    import torch

    z = logits.detach()
    wide = z.dtype in (torch.float32, torch.float64)
    if (wide and z.device.type == "cpu") or bool(z.isnan().any()):
        # The memory names the NaN, unless it stands at padding.
        return np.asarray((z if wide else z.float()).cpu().numpy())
    return np.asarray((z[..., 1:] > z[..., :1]).cpu().numpy())
