"""LiGR: self-attention over a window of items, with gates on what each branch adds.

Shapes: B rows, L positions, H hidden size, A heads, P packed positions, R rows and T positions of
a bucket.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization

from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.configuration_ligr import LiGRConfig
from lmcore.recsys.layout import Layout


class LiGRBlock(nn.Module):
    """Attention and a SwiGLU layer, each of the normalised input and gated by the input.

    x + sigmoid(W x) * f(norm(x)), for f the attention and then the feed-forward.
    """

    def __init__(self, config: LiGRConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.feed_forward_multiplier * config.hidden_size
        self.heads, self.dropout = config.num_attention_heads, config.dropout
        self.attention_layernorm = nn.LayerNorm(size, config.layer_norm_eps)
        # Without biases: that of the keys changes no softmax.
        self.projection = nn.Linear(size, 3 * size, bias=False)
        self.output = nn.Linear(size, size)
        self.attention_gate = nn.Linear(size, size)
        self.forward_layernorm = nn.LayerNorm(size, config.layer_norm_eps)
        self.inner = nn.Linear(size, 2 * inner, bias=False)
        self.outer = nn.Linear(inner, size, bias=False)
        self.forward_gate = nn.Linear(size, size)

    def forward(self, x: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Returns `[..., H]` for `[..., H]`.

        Args:
            x: `[..., H]`.
            attend: makes `[..., A, H / A]` of queries, keys and values of that shape.
        """
        parts = self.projection(self.attention_layernorm(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        attended = self.output(attend(q, k, v).flatten(-2))
        x = x + self.attention_gate(x).sigmoid() * self._drop(attended)
        left, right = self.inner(self.forward_layernorm(x)).chunk(2, -1)
        fed = self.outer(self._drop(functional.silu(left) * right))
        gated: Tensor = x + self.forward_gate(x).sigmoid() * self._drop(fed)
        return gated

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class LiGRModel(SequenceModel):
    """Returns features of windows by causal self-attention in LiGR's blocks.

    Padding is not attended to. Positions count from the left end of the window, so that the last
    item stands at L - 1. There is no normalisation behind the last block.

    Source: arXiv 2502.03417; eSASRec (RecSys 2025) in RecTools, where the projections of
    attention have biases and padding gets attention.

    Args:
        config: the sizes.

    Example:
        >>> model = LiGRModel(LiGRConfig(item_count=9, max_length=4, hidden_size=8))
        >>> model(torch.tensor([[0, 0, 3, 9]])).shape
        torch.Size([1, 4, 8])
    """

    config: LiGRConfig
    config_class = LiGRConfig

    def __init__(self, config: LiGRConfig) -> None:
        super().__init__(config)
        self.item_emb = nn.Embedding(config.item_count + 1, config.hidden_size, padding_idx=0)
        self.pos_emb = nn.Embedding(config.max_length, config.hidden_size)
        self.blocks = nn.ModuleList(LiGRBlock(config) for _ in range(config.num_hidden_layers))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, sequences: Tensor) -> Tensor:
        """Returns the features of every position.

        Args:
            sequences: `[B, L]` int64 item ids, 0 for padding, L the configuration's `max_length`.

        Returns:
            `[B, L, H]`; those at padding positions mean nothing.

        Raises:
            ValueError: `sequences` have another shape.
            TypeError: `sequences` are not integers.
            IndexError: an item id lies outside 0..I.
        """
        self._check_sequences(sequences)
        length = sequences.shape[1]
        ones = torch.ones(length, length, dtype=torch.bool, device=sequences.device)
        # Padding sees itself: a query needs a key.
        own = torch.eye(length, dtype=torch.bool, device=sequences.device)
        mask = (ones.tril() & (sequences != 0)[:, None, None]) | own

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (part.transpose(1, 2) for part in (q, k, v))
            return self._attend(q, k, v, mask).transpose(1, 2)

        return self._encode(sequences, self.pos_emb.weight, attend)

    def forward_packed(self, sequences: Tensor, flat_indices: Tensor) -> Tensor:
        """Returns the features of the packed positions, on a CPU without work for padding.

        Args:
            sequences: `[B, L]` int64 windows.
            flat_indices: `[P]` int64, indices `row * L + p` of positions that hold an item.

        Returns:
            `[P, H]`, equal to `forward(sequences)` there; with dropout, in distribution.

        Raises:
            ValueError: `sequences` have another shape, or a position holds no item.
            TypeError: `sequences` are not integers.
            IndexError: an item id lies outside 0..I.
        """
        if sequences.device.type != "cpu":
            return super().forward_packed(sequences, flat_indices)
        self._check_sequences(sequences)
        layout = Layout(sequences)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            outputs = []
            for bucket in layout.buckets:
                # [R, A, T, H / A]: a row's items come first, and what fills it up comes after.
                queries, keys, values = (
                    part.index_select(0, bucket.flatten())
                    .unflatten(0, bucket.shape)
                    .transpose(1, 2)
                    for part in (q, k, v)
                )
                attended = self._attend(queries, keys, values, None)
                outputs.append(attended.transpose(1, 2).flatten(0, 1))
            return torch.cat(outputs).index_select(0, layout.unbucket) if outputs else q

        features = self._encode(layout.items, self.pos_emb(layout.columns), attend)
        return layout.select(features, flat_indices)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """What `[..., A, T, H / A]` attend to: by the mask, or to all up to them."""
        dropout = self.config.dropout * self.training
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None
        )

    def _encode(
        self,
        items: Tensor,
        positions: Tensor,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> Tensor:
        x: Tensor = self.item_emb(items) + positions
        x = functional.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = cast(LiGRBlock, block)(x, attend)
        return x

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Starts the parameters that no checkpoint gave."""
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                initialization.xavier_normal_(parameter)
            elif isinstance(module, nn.LayerNorm) and name == "weight":
                initialization.ones_(parameter)
            else:
                initialization.zeros_(parameter)
