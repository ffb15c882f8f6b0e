"""SASRec as UFNRec trains it: self-attention over a window of items.

Shapes: B rows, L positions, H hidden size, A heads, I items, P packed positions.

Kept from the released code, because published numbers and checkpoints come from it: keys and
values are not normalised, only the query is; the residual adds to the normalised query, and the
feed-forward residual to the normalised input; padding is a zero vector that still gets attention.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization

from lmcore._attention import NAME
from lmcore._weights import read_weights
from lmcore.attention import draw_seed
from lmcore.ops.attention import attention
from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.layout import Layout


class PointWiseFeedForward(nn.Module):
    """Two linear maps at each position; the weights have the shape of convolutions of width 1."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(hidden_size, hidden_size, kernel_size=1)
        self.conv2 = nn.Conv1d(hidden_size, hidden_size, kernel_size=1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Returns `[..., H]` for `[..., H]`, with the residual."""
        # A linear map does what a convolution of width 1 does, without two transpositions.
        inner = functional.linear(x, self.conv1.weight.squeeze(-1), self.conv1.bias)
        inner = functional.relu(functional.dropout(inner, self.dropout, self.training))
        outer = functional.linear(inner, self.conv2.weight.squeeze(-1), self.conv2.bias)
        return x + functional.dropout(outer, self.dropout, self.training)


class SASRecModel(SequenceModel):
    """Returns features of windows by causal self-attention.

    The names in `state_dict` are those of pmixer/SASRec.pytorch, so that its checkpoints load.
    Weights of two and more dimensions start from Xavier's normal distribution, also the padding
    row and the position table; the others as torch does it.  With `attn_implementation="lmcore"`
    padding makes no queries on a GPU; otherwise torch's attention computes all positions.

    Source: Kang and McAuley (ICDM 2018); UFNRec (arXiv 2208.04116), `model.py`.

    Args:
        config: the sizes.

    Example:
        >>> model = SASRecModel(SASRecConfig(item_count=9, max_length=4, hidden_size=8))
        >>> model(torch.tensor([[0, 0, 3, 9]])).shape
        torch.Size([1, 4, 8])
    """

    config: SASRecConfig
    config_class = SASRecConfig

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        size, layers, eps = config.hidden_size, config.num_hidden_layers, config.layer_norm_eps
        self.item_emb = nn.Embedding(config.item_count + 1, size, padding_idx=0)
        self.pos_emb = nn.Embedding(config.max_length, size)
        self.attention_layernorms = _norms(layers, size, eps)
        self.attention_layers = nn.ModuleList(
            nn.MultiheadAttention(size, config.num_attention_heads) for _ in range(layers)
        )
        self.forward_layernorms = _norms(layers, size, eps)
        self.forward_layers = nn.ModuleList(
            PointWiseFeedForward(size, config.dropout) for _ in range(layers)
        )
        self.last_layernorm = nn.LayerNorm(size, eps)
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
        held = (sequences != 0).unsqueeze(-1)
        x = self._embed(self.item_emb(sequences), self.pos_emb.weight) * held
        for block in range(self.config.num_hidden_layers):
            query, q, k, v = self._project(block, x)
            q, k, v = (self._split(part).transpose(1, 2) for part in (q, k, v))
            attended = self._attend_windows(q, k, v, held)
            x = self._finish(block, query, attended.transpose(1, 2).flatten(2)) * held
        features: Tensor = self.last_layernorm(x)
        return features

    def forward_packed(self, sequences: Tensor, flat_indices: Tensor) -> Tensor:
        """Returns the features of the packed positions, on a CPU without work for padding.

        A padding position is a zero vector in every block, so that all of them have the score 0
        and the same value, the bias of the projection.  One column with the score ln c stands for
        the c of them that a query sees, and its dropout is the mean of c draws.

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
        x = self._embed(self.item_emb(layout.items), self.pos_emb(layout.columns))
        for block in range(self.config.num_hidden_layers):
            query, q, k, v = self._project(block, x)
            x = self._finish(block, query, self._attend(block, layout, q, k, v))
        features: Tensor = self.last_layernorm(x)
        return layout.select(features, flat_indices)

    def _embed(self, items: Tensor, positions: Tensor) -> Tensor:
        x = items * math.sqrt(self.config.hidden_size) + positions
        return functional.dropout(x, self.config.dropout, self.training)

    def _project(self, block: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the normalised query before and after its projection, keys and values."""
        size, attention = self.config.hidden_size, self._attention(block)
        query = self._layer("attention_layernorms", block)(x)
        weights = attention.in_proj_weight.split(size)
        q_bias, _, v_bias = attention.in_proj_bias.split(size)
        q = functional.linear(query, weights[0], q_bias)
        # The keys' bias adds the same to all scores of a query, which the softmax takes out
        # again. Computed all the same, its gradient is rounding, and Adam would follow that.
        k = functional.linear(x, weights[1])
        v = functional.linear(x, weights[2], v_bias)
        return query, q, k, v

    def _finish(self, block: int, query: Tensor, attended: Tensor) -> Tensor:
        x = query + self._attention(block).out_proj(attended)
        x = self._layer("forward_layernorms", block)(x)
        return self._layer("forward_layers", block)(x)

    def _split(self, x: Tensor) -> Tensor:
        """Returns `[..., A, H / A]`."""
        heads = self.config.num_attention_heads
        return x.view(*x.shape[:-1], heads, x.shape[-1] // heads)

    def _attention(self, block: int) -> nn.MultiheadAttention:
        return cast(nn.MultiheadAttention, self.attention_layers[block])

    def _layer(self, name: str, block: int) -> Callable[[Tensor], Tensor]:
        return cast(Callable[[Tensor], Tensor], getattr(self, name)[block])

    def _attend_windows(self, q: Tensor, k: Tensor, v: Tensor, held: Tensor) -> Tensor:
        """Returns what `[B, A, L, H / A]` attend to, padding included."""
        dropout = self.config.dropout * self.training
        if self.config._attn_implementation != NAME:
            return functional.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True
            )
        # Padding is attended to, and attends to nothing that counts: queries begin at the items.
        return attention(
            q, k, v, query_starts=held[..., 0].int().argmax(1), causal=True, dropout=dropout,
            seed=draw_seed() if dropout else 0,
        )  # fmt: skip

    def _attend(self, block: int, layout: Layout, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Returns what the packed positions attend to, `[P, H]`."""
        pad_value = self._split(self._attention(block).in_proj_bias.chunk(3)[2])
        q = q / math.sqrt(pad_value.shape[-1])
        dropout = self.config.dropout * self.training
        outputs = []
        for bucket in layout.buckets:
            length = bucket.shape[1]
            # [R, A, T, H / A] for R rows of at most T items
            queries, keys, values = (
                self._split(part.index_select(0, bucket.flatten()))
                .unflatten(0, bucket.shape)
                .transpose(1, 2)
                for part in (q, k, v)
            )
            scores = queries @ keys.transpose(2, 3) + layout.causal[:length, :length].to(q.dtype)
            pads = layout.pad_logs[bucket][:, None, :, None].to(scores.dtype)
            pads = pads.expand(*scores.shape[:-1], 1)
            weights = torch.cat([scores, pads], -1).softmax(-1)
            shares, pad_shares = weights[..., :-1], weights[..., -1:]
            if dropout:
                shares = functional.dropout(shares, dropout)
                counts = layout.pads[bucket][:, None, :, None].expand_as(pad_shares)
                kept = torch.binomial(counts, torch.full_like(counts, 1 - dropout))
                pad_shares = pad_shares * (kept / (counts.clamp(min=1) * (1 - dropout)))
            attended = shares @ values + pad_shares * pad_value[:, None]
            outputs.append(attended.transpose(1, 2).flatten(2).flatten(0, 1))
        return torch.cat(outputs).index_select(0, layout.unbucket) if outputs else q

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Starts the parameters that no checkpoint gave."""
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                initialization.xavier_normal_(parameter)
            elif isinstance(module, nn.Conv1d):
                bound = 1 / math.sqrt(self.config.hidden_size)
                initialization.uniform_(parameter, -bound, bound)
            elif isinstance(module, nn.LayerNorm) and name == "weight":
                initialization.ones_(parameter)
            else:
                initialization.zeros_(parameter)


def load_sasrec(
    path: str | os.PathLike[str], *, num_attention_heads: int = 1, dropout: float = 0.5
) -> SASRecModel:
    """Returns a model with the weights of a `state_dict` file in pmixer's names.

    The sizes are read from the shapes; heads and dropout leave no trace in them.

    Args:
        path: a `.safetensors` file, or a file that `torch.save` wrote (`.pth`, `.pt`); the latter
            is read with `weights_only`, so it cannot run code.
        num_attention_heads: heads that the weights were trained with.
        dropout: for further training.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else than the weights of a SASRec.

    Example:
        >>> import tempfile
        >>> model = SASRecModel(SASRecConfig(item_count=9, max_length=4, hidden_size=8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(model.state_dict(), Path(folder, "sasrec.pth"))
        ...     load_sasrec(Path(folder, "sasrec.pth")).config.item_count
        9
    """
    weights = read_weights(Path(path))
    missing = [name for name in ("item_emb.weight", "pos_emb.weight") if name not in weights]
    if missing:
        raise ValueError(f"{path} holds no SASRec: {missing[0]} is missing")
    item_table, pos_table = weights["item_emb.weight"], weights["pos_emb.weight"]
    if item_table.ndim != 2 or pos_table.ndim != 2:
        shapes = f"{list(item_table.shape)} and {list(pos_table.shape)}"
        raise ValueError(f"{path} holds no SASRec: the tables must be [rows, H]: got {shapes}")
    if num_attention_heads < 1 or item_table.shape[1] % num_attention_heads:
        raise ValueError(
            f"{path}: the hidden size must be a multiple of the attention heads: "
            f"got {item_table.shape[1]} and {num_attention_heads}"
        )
    layers = {name.split(".")[1] for name in weights if name.startswith("attention_layers.")}
    config = SASRecConfig(
        item_count=item_table.shape[0] - 1,
        max_length=pos_table.shape[0],
        hidden_size=item_table.shape[1],
        num_hidden_layers=len(layers),
        num_attention_heads=num_attention_heads,
        dropout=dropout,
    )
    model = SASRecModel(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{path} holds no SASRec: {problem}") from None
    return model


def _norms(layers: int, size: int, eps: float) -> nn.ModuleList:
    return nn.ModuleList(nn.LayerNorm(size, eps) for _ in range(layers))
