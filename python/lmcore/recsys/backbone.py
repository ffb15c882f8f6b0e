"""What the backbones share: a window of items in, one feature vector per position out.

Shapes: B rows of a batch, L positions of the window, H hidden size, I items of the catalogue,
P packed positions, K candidates.

A window is right aligned and padded with 0 on the left.  "Packed" means only the positions that
hold an item, row after row and from left to right; `flat_indices` [P] are `row * L + p`.
"""

import math
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

# Far above what is trained. Products of sizes stay below 2**63, which is where torch's end.
_LARGEST = {
    "item_count": 2**31 - 1,
    "max_length": 65_536,
    "hidden_size": 65_536,
    "gru_size": 65_536,
    "feed_forward_multiplier": 1024,
    "num_hidden_layers": 1000,
}


class Sizes(Protocol):
    """The fields that every configuration of a backbone has."""

    item_count: int
    max_length: int
    hidden_size: int
    num_hidden_layers: int
    dropout: float | int


class SequenceModel(PreTrainedModel):
    """A backbone: `forward` gives features, and a score is feature times item embedding.

    A subclass sets `item_emb`, an embedding `[I + 1, H]` whose row 0 is padding, and defines
    `forward`.  At inference the last position of the features counts.

    Example:
        >>> from lmcore.recsys import GRU4RecConfig, GRU4RecModel
        >>> model = GRU4RecModel(GRU4RecConfig(item_count=9, max_length=4))
        >>> features = model(torch.tensor([[0, 0, 3, 9]]))[:, -1]
        >>> model.score_catalogue(features).shape
        torch.Size([1, 9])
    """

    base_model_prefix = "model"
    main_input_name = "sequences"
    is_causal: ClassVar[bool] = True
    """Whether the feature of a position depends only on the items up to that position.

    Where it does not, `forward` may be trained at the last position only, and `forward_packed`
    gives each position the feature that its prefix has in a window of its own.
    """

    item_emb: nn.Embedding

    def forward(self, sequences: Tensor) -> Tensor:
        """Returns the features of every position.

        Args:
            sequences: `[B, L]` int64 windows.

        Returns:
            `[B, L, H]`.
        """
        raise NotImplementedError

    def forward_packed(self, sequences: Tensor, flat_indices: Tensor) -> Tensor:
        """Returns the features of the packed positions alone, as the training step needs them.

        Args:
            sequences: `[B, L]` int64 windows, L the configuration's `max_length`.
            flat_indices: `[P]` int64, indices `row * L + p` of positions that hold an item.

        Returns:
            `[P, H]`, equal to `forward(sequences)` at these positions for a causal backbone; for
            another one the last features of the windows that end at these positions.

        Raises:
            ValueError: `sequences` have another shape.
            TypeError: `sequences` are not integers.
            IndexError: an item id lies outside 0..I.
        """
        if self.is_causal:
            features: Tensor = self(sequences)
            return features.flatten(0, 1).index_select(0, flat_indices)
        last: Tensor = self(cut_prefixes(sequences, flat_indices))
        return last[:, -1]

    def score_items(self, features: Tensor, items: Tensor) -> Tensor:
        """Returns the scores `[..., K]` of candidates.

        Args:
            features: `[..., H]`.
            items: `[..., K]` int64 ids in 0..I.
        """
        candidates = functional.embedding(items, self.item_emb.weight, padding_idx=0)
        return (candidates @ features.unsqueeze(-1)).squeeze(-1)

    def score_catalogue(self, features: Tensor) -> Tensor:
        """Returns the scores `[..., I]` of the whole catalogue: column c is item c + 1.

        Args:
            features: `[..., H]`.
        """
        return features @ self.item_emb.weight[1:].T

    def _check_sequences(self, sequences: Tensor) -> None:
        length, item_count = self.config.max_length, self.config.item_count
        if sequences.ndim != 2 or sequences.shape[1] != length:
            raise ValueError(
                f"sequences must have the shape [batch, {length}]: got {list(sequences.shape)}"
            )
        if sequences.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"sequences must be int64 or int32: got {sequences.dtype}")
        # Elsewhere the check would wait for the device.
        if sequences.device.type == "cpu" and sequences.numel():
            least, most = (int(value) for value in sequences.aminmax())
            if least < 0 or most > item_count:
                wrong = (sequences < 0) | (sequences > item_count)
                row, position = (int(value) for value in wrong.nonzero()[0])
                raise IndexError(
                    f"sequences must hold item ids in 0..{item_count}: "
                    f"got {int(sequences[row, position])} in row {row}, position {position}"
                )


def find_starts(sequences: Tensor) -> Tensor:
    """Returns the position of each row's first item: `[B]`, L - 1 where there is none.

    Args:
        sequences: `[B, L]` int64.

    Example:
        >>> find_starts(torch.tensor([[0, 4, 7], [0, 0, 0]])).tolist()
        [1, 2]
    """
    held = sequences != 0
    held[:, -1] = True
    return held.to(torch.uint8).argmax(1)


def cut_prefixes(sequences: Tensor, flat_indices: Tensor) -> Tensor:
    """Returns for each position the window that ends there: `[P, L]`, right aligned.

    Args:
        sequences: `[B, L]` int64.
        flat_indices: `[P]` int64 indices `row * L + p`.

    Example:
        >>> cut_prefixes(torch.tensor([[0, 4, 7]]), torch.tensor([1, 2])).tolist()
        [[0, 0, 4], [0, 4, 7]]
    """
    length = sequences.shape[1]
    rows, ends = flat_indices // length, flat_indices % length
    columns = torch.arange(1 - length, 1, device=sequences.device) + ends[:, None]
    windows = sequences[rows[:, None], columns.clamp(min=0)]
    return windows.masked_fill(columns < 0, 0)


def check_sizes(config: Sizes) -> None:
    """Checks that the sizes of a backbone are in their ranges.

    Args:
        config: the configuration.

    Raises:
        ValueError: a size is out of its range, the dropout lies outside [0, 1), or an epsilon is
            below 0.

    Example:
        >>> from lmcore.recsys.configuration_gru4rec import GRU4RecConfig
        >>> check_sizes(GRU4RecConfig(item_count=3))
    """
    for name, most in _LARGEST.items():
        value = getattr(config, name, 1)
        if not 1 <= value <= most:
            raise ValueError(f"{name} must be at least 1 and at most {most}: got {value}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1: got {config.dropout}")
    epsilon = getattr(config, "layer_norm_eps", 0.0)
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"layer_norm_eps must be at least 0 and finite: got {epsilon}")


def check_heads(hidden_size: int, heads: int) -> None:
    """Checks that heads of attention share the hidden size evenly.

    Args:
        hidden_size: H.
        heads: A.

    Raises:
        ValueError: they do not.

    Example:
        >>> check_heads(8, 2)
    """
    if heads < 1 or hidden_size % heads:
        raise ValueError(
            f"hidden_size must be a multiple of num_attention_heads: got {hidden_size} and {heads}"
        )
