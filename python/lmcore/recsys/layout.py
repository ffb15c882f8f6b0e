"""The items of a batch without its padding.

Shapes: B rows, L positions, P packed positions, R rows of a bucket, T positions of a bucket, H
hidden size.
"""

import torch
from torch import Tensor


class Layout:
    """Where the items of a batch stand: packed, and in buckets of rows with similar lengths.

    Args:
        sequences: `[B, L]` integers, right aligned windows, 0 for padding.

    Example:
        >>> layout = Layout(torch.tensor([[0, 0, 4], [7, 8, 9]]))
        >>> layout.items.tolist(), layout.columns.tolist(), layout.buckets[0].tolist()
        ([4, 7, 8, 9], [2, 0, 1, 2], [[0, 0, 0], [1, 2, 3]])
    """

    def __init__(self, sequences: Tensor) -> None:
        held = sequences != 0
        rows, self.columns = held.nonzero(as_tuple=True)
        self.items = sequences[rows, self.columns]
        """`[P]` item ids."""
        self.flat_indices = rows * sequences.shape[1] + self.columns
        lengths = held.sum(1)
        starts = lengths.cumsum(0) - lengths
        ranks = torch.arange(len(rows)) - starts[rows]
        self.pads = (self.columns - ranks).to(torch.float32)
        """`[P]` number of padding positions that a query sees."""
        self.pad_logs = self.pads.log()
        """Minus infinity where there are none."""
        self.buckets: list[Tensor] = []
        """`[R, T]` packed indices of R rows with at most T items; what fills up is 0."""
        self.unbucket = torch.empty_like(rows)
        """`[P]` index of a packed position in the buckets one after the other."""
        longest = int(lengths.max()) if len(lengths) else 0
        self.causal = torch.full((longest, longest), -torch.inf).triu(1)
        base, shorter = 0, 0
        while shorter < longest:
            size = min(max(2 * shorter, 4), longest)
            chosen = ((lengths > shorter) & (lengths <= size)).nonzero().squeeze(1)
            shorter = size
            if not len(chosen):
                continue
            steps = torch.arange(size)
            packed = starts[chosen, None] + steps
            inside = steps < lengths[chosen, None]
            self.buckets.append(packed.masked_fill(~inside, 0))
            flat = torch.arange(base, base + packed.numel()).view_as(packed)
            self.unbucket[packed[inside]] = flat[inside]
            base += packed.numel()

    def select(self, features: Tensor, flat_indices: Tensor) -> Tensor:
        """Returns the rows of packed features that belong to `flat_indices`.

        Args:
            features: `[P, H]`, of all positions with an item.
            flat_indices: `[K]` int64, `row * L + p`.

        Returns:
            `[K, H]`.

        Raises:
            ValueError: a position holds no item.

        Example:
            >>> layout = Layout(torch.tensor([[0, 4, 7]]))
            >>> layout.select(torch.tensor([[0.5], [1.5]]), torch.tensor([2])).tolist()
            [[1.5]]
        """
        if torch.equal(flat_indices, self.flat_indices):
            return features
        found = torch.searchsorted(self.flat_indices, flat_indices)
        known = self.flat_indices.new_full((len(self.flat_indices) + 1,), -1)
        known[:-1] = self.flat_indices
        if not torch.equal(known[found], flat_indices):
            wrong = int(flat_indices[(known[found] != flat_indices).nonzero()[0, 0]])
            raise ValueError(f"flat_indices must be positions that hold an item: got {wrong}")
        return features.index_select(0, found)
