"""GRU4Rec: a recurrent network over a window of items.

Shapes: B rows, L positions, H hidden size, G size of the state, P packed positions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence
from transformers import initialization

from lmcore.recsys.backbone import SequenceModel, find_starts
from lmcore.recsys.configuration_gru4rec import GRU4RecConfig


class GRU4RecModel(SequenceModel):
    """Returns features of windows by gated recurrent units.

    Embedding, dropout, GRU without biases, and a linear map back to H.  The recurrence starts at
    the first item of a window: padding does not pass through it.

    Source: Hidasi et al. (ICLR 2016) in the form of RecBole, which reads items through an
    embedding where the paper has one-hot vectors, and leaves the loss to the caller.

    Args:
        config: the sizes.

    Example:
        >>> model = GRU4RecModel(GRU4RecConfig(item_count=9, max_length=4))
        >>> model(torch.tensor([[0, 0, 3, 9]])).shape
        torch.Size([1, 4, 50])
    """

    config: GRU4RecConfig
    config_class = GRU4RecConfig

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.item_emb = nn.Embedding(config.item_count + 1, size, padding_idx=0)
        self.gru = nn.GRU(
            size, config.gru_size, config.num_hidden_layers, bias=False, batch_first=True
        )
        self.output = nn.Linear(config.gru_size, size)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, sequences: Tensor) -> Tensor:
        """Returns the features of every position.

        Args:
            sequences: `[B, L]` int64 item ids, 0 for padding, L the configuration's `max_length`.

        Returns:
            `[B, L, H]`; zero at padding positions.

        Raises:
            ValueError: `sequences` have another shape.
            TypeError: `sequences` are not integers.
            IndexError: an item id lies outside 0..I.
        """
        self._check_sequences(sequences)
        length = sequences.shape[1]
        # Left aligned, the items come first and the recurrence sees no padding before them.
        starts = find_starts(sequences)[:, None]
        columns = torch.arange(length, device=sequences.device)
        states = self._embed(sequences.gather(1, (columns + starts).clamp(max=length - 1)))
        states, _ = self.gru(states)
        back = (columns - starts).clamp(min=0).unsqueeze(-1).expand(-1, -1, states.shape[2])
        features: Tensor = self.output(states.gather(1, back))
        return features * (columns >= starts).unsqueeze(-1)

    def forward_packed(self, sequences: Tensor, flat_indices: Tensor) -> Tensor:
        """Returns the features of the packed positions, on a CPU without work for padding.

        Args:
            sequences: `[B, L]` int64 windows.
            flat_indices: `[P]` int64, indices `row * L + p` of positions that hold an item.

        Returns:
            `[P, H]`, equal to `forward(sequences)` at these positions.

        Raises:
            ValueError: `sequences` have another shape.
            TypeError: `sequences` are not integers.
            IndexError: an item id lies outside 0..I.
        """
        if sequences.device.type != "cpu" or not len(flat_indices):
            return super().forward_packed(sequences, flat_indices)
        self._check_sequences(sequences)
        # Time first, and at each step the rows that are long enough, the longest row first.
        lengths, order = (sequences.shape[1] - find_starts(sequences)).sort(descending=True)
        steps = torch.arange(int(lengths[0])).unsqueeze(1)
        running = steps < lengths
        columns = sequences.shape[1] - lengths + steps
        flat = (order * sequences.shape[1] + columns)[running]
        sizes = running.sum(1)
        states, _ = self.gru(PackedSequence(self._embed(sequences.flatten()[flat]), sizes))
        index = flat.new_zeros(sequences.numel())
        index[flat] = torch.arange(len(flat))
        features: Tensor = self.output(states.data.index_select(0, index[flat_indices]))
        return features

    def _embed(self, items: Tensor) -> Tensor:
        return functional.dropout(self.item_emb(items), self.config.dropout, self.training)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Starts the parameters that no checkpoint gave, as RecBole does."""
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.GRU):
                initialization.xavier_uniform_(parameter)
            elif parameter.ndim >= 2:
                initialization.xavier_normal_(parameter)
            else:
                initialization.zeros_(parameter)
