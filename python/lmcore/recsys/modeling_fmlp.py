"""FMLP-Rec: learnable filters in the frequency domain over a window of items.

Shapes: B rows, L positions, H hidden size, P packed positions, F = L // 2 + 1 frequencies.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization

from lmcore.recsys.backbone import SequenceModel, cut_prefixes
from lmcore.recsys.configuration_fmlp import FMLPConfig


class FilterLayer(nn.Module):
    """A filter over the positions of a window: a circular convolution with a learnt kernel.

    The kernel is kept as its spectrum, `[F, H, 2]` real and imaginary parts.
    """

    def __init__(self, config: FMLPConfig) -> None:
        super().__init__()
        frequencies = config.max_length // 2 + 1
        self.weight = nn.Parameter(torch.empty(frequencies, config.hidden_size, 2))
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = config.dropout

    def forward(self, x: Tensor, last_only: bool) -> Tensor:
        """Returns `[B, L, H]` for `[B, L, H]`, or only the last position as `[B, 1, H]`."""
        length = x.shape[1]
        spectrum = torch.view_as_complex(self.weight.float())
        if last_only:
            # Position L - 1 of the convolution: the kernel at L - 1 - j times position j.
            kernel = torch.fft.irfft(spectrum, n=length, dim=0).flip(0)
            filtered = torch.einsum("lh,blh->bh", kernel.to(x.dtype), x).unsqueeze(1)
            x = x[:, -1:]
        else:
            transformed = torch.fft.rfft(x.float(), dim=1) * spectrum
            filtered = torch.fft.irfft(transformed, n=length, dim=1).to(x.dtype)
        filtered = functional.dropout(filtered, self.dropout, self.training)
        result: Tensor = self.layernorm(x + filtered)
        return result


class FeedForward(nn.Module):
    """Two linear maps at each position with a GELU between them."""

    def __init__(self, config: FMLPConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.inner = nn.Linear(size, 4 * size)
        self.outer = nn.Linear(4 * size, size)
        self.layernorm = nn.LayerNorm(size, config.layer_norm_eps)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Returns `[..., H]` for `[..., H]`, with residual and normalisation."""
        outer = self.outer(functional.gelu(self.inner(x)))
        outer = functional.dropout(outer, self.dropout, self.training)
        result: Tensor = self.layernorm(x + outer)
        return result


class FMLPModel(SequenceModel):
    """Returns features of windows by filters in the frequency domain.

    A filter is circular and not causal: each position sees the whole window, so at an inner
    position it would see the item that it has to predict.  The authors therefore train on every
    prefix of a user's items as a window of its own and only at its last position.
    `forward_packed` does the same: position by position it cuts the prefix that ends there.

    Padding is not masked, as in the authors' code: padding positions have a position embedding
    and pass through the filters.  The padding row of the items is zero, and theirs is random.

    Source: Zhou et al. (WWW 2022).

    Args:
        config: the sizes.

    Example:
        >>> model = FMLPModel(FMLPConfig(item_count=9, max_length=4))
        >>> model.forward_packed(torch.tensor([[0, 0, 3, 9]]), torch.tensor([2, 3])).shape
        torch.Size([2, 64])
    """

    config: FMLPConfig
    config_class = FMLPConfig
    is_causal = False

    def __init__(self, config: FMLPConfig) -> None:
        super().__init__(config)
        size, layers = config.hidden_size, config.num_hidden_layers
        self.item_emb = nn.Embedding(config.item_count + 1, size, padding_idx=0)
        self.pos_emb = nn.Embedding(config.max_length, size)
        self.embedding_layernorm = nn.LayerNorm(size, config.layer_norm_eps)
        self.filter_layers = nn.ModuleList(FilterLayer(config) for _ in range(layers))
        self.forward_layers = nn.ModuleList(FeedForward(config) for _ in range(layers))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, sequences: Tensor) -> Tensor:
        """Returns the features of every position; only the last one has seen no later item.

        Args:
            sequences: `[B, L]` int64 item ids, 0 for padding, L the configuration's `max_length`.

        Returns:
            `[B, L, H]`.

        Raises:
            ValueError: `sequences` have another shape.
            TypeError: `sequences` are not integers.
            IndexError: an item id lies outside 0..I.
        """
        self._check_sequences(sequences)
        return self._encode(sequences, last_only=False)

    def forward_packed(self, sequences: Tensor, flat_indices: Tensor) -> Tensor:
        """Returns for each position the last feature of the window that ends there.

        P windows pass through the blocks; the last block computes their last positions alone.

        Args:
            sequences: `[B, L]` int64 windows.
            flat_indices: `[P]` int64, `row * L + p` of positions that hold an item; the last
                positions of the rows alone are cheaper, and train each user's last target.

        Returns:
            `[P, H]`.

        Raises:
            ValueError: `sequences` have another shape.
            TypeError: `sequences` are not integers.
            IndexError: an item id lies outside 0..I.
        """
        self._check_sequences(sequences)
        return self._encode(cut_prefixes(sequences, flat_indices), last_only=True).squeeze(1)

    def _encode(self, sequences: Tensor, *, last_only: bool) -> Tensor:
        x: Tensor = self.embedding_layernorm(self.item_emb(sequences) + self.pos_emb.weight)
        x = functional.dropout(x, self.config.dropout, self.training)
        last = self.config.num_hidden_layers - 1
        for block, (filter_layer, feed_forward) in enumerate(
            zip(self.filter_layers, self.forward_layers, strict=True)
        ):
            x = feed_forward(filter_layer(x, last_only and block == last))
        return x

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Starts the parameters that no checkpoint gave."""
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                initialization.normal_(parameter, 0.0, self.config.initializer_range)
            elif isinstance(module, nn.LayerNorm) and name == "weight":
                initialization.ones_(parameter)
            else:
                initialization.zeros_(parameter)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            weight = module.weight
            if not getattr(weight, "_is_hf_initialized", False):
                initialization.zeros_(weight[module.padding_idx])
