"""The sizes of an encoder-decoder or a decoder, as far as its cost depends on them."""

from __future__ import annotations

from dataclasses import dataclass, fields

MOST = 2**31 - 1
"""Above this no size is a mistake of less than a digit."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Shape:
    """Sizes of a transformer whose layers are alike within a stack.

    A layer has self-attention, in a decoder behind an encoder cross-attention, and a feed-forward,
    each with a norm of its own, and each stack ends with one more.

    Raises:
        TypeError: a size is no whole number, or a choice no truth value.
        ValueError: a size is outside of its range, or the groups do not divide the heads.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=12, decoder_layers=36, hidden_size=4096, heads=40, groups=40,
        ...     head_size=128, inner_size=11008, vocabulary_size=250368,
        ... )
        >>> shape.heads_size
        5120
    """

    encoder_layers: int
    """0 is a decoder alone."""
    decoder_layers: int
    """0 is an encoder alone."""
    hidden_size: int
    heads: int
    """Query heads of every attention."""
    groups: int
    """Heads of keys and values, each of which serves the same number of query heads."""
    head_size: int
    inner_size: int
    """Of the feed-forward, one of the two halves where it is gated."""
    vocabulary_size: int
    """Rows of the embedding, those that fill it up included."""
    gated: bool = True
    """Whether the feed-forward multiplies two maps of its input (SwiGLU and its like)."""
    fused_qkv: bool = False
    """Whether one product gives queries, keys and values, all of which is then kept for one."""
    qkv_bias: bool = False
    """Of the maps to queries, keys and values."""
    output_bias: bool = False
    """Of the map behind the heads."""
    inner_bias: bool = False
    """Of the maps of the feed-forward."""
    norm_bias: bool = False
    """Whether norms have biases beside their weights."""
    head_bias: bool = False
    """Of the output layer."""
    tied: bool = False
    """Whether the output layer's weights are the embedding itself, in memory too."""
    head_norm: bool = False
    """Whether queries and keys have norms of a head's size, with weights alone."""
    position_rows: int = 0
    """Rows of learned positions, of the hidden size each; rotary positions have none."""
    bias_buckets: int = 0
    """Buckets of distances, for each of which and each head a bias is learned."""
    bias_of_each_layer: bool = False
    """Whether each layer has a table of these biases, or the first of a stack for all of it."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise TypeError(f"{field.name} must be true or false: got {value!r:.60}")
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{field.name} must be a whole number: got {value!r:.60}")
            least = 0 if field.name.endswith(("_layers", "_rows", "_buckets")) else 1
            if not least <= value <= MOST:
                raise ValueError(f"{field.name} must be from {least} to {MOST}: got {value}")
        if not self.encoder_layers + self.decoder_layers:
            raise ValueError("encoder_layers and decoder_layers must not both be 0")
        if self.heads % self.groups:
            raise ValueError(f"groups must divide heads: got {self.groups} and {self.heads}")

    @property
    def heads_size(self) -> int:
        """The size of all query heads of an attention together, which need not be the hidden's."""
        return self.heads * self.head_size

    @property
    def groups_size(self) -> int:
        """The size of all keys, or of all values, of a token in a layer."""
        return self.groups * self.head_size

    @property
    def position_parameters(self) -> int:
        """Weights for positions, of all stacks together."""
        stacks = (self.encoder_layers > 0) + (self.decoder_layers > 0)
        tables = self.encoder_layers + self.decoder_layers if self.bias_of_each_layer else stacks
        return self.position_rows * self.hidden_size + tables * self.bias_buckets * self.heads

    @property
    def has_cross_attention(self) -> bool:
        """Whether the decoder attends to an encoder."""
        return self.encoder_layers > 0 and self.decoder_layers > 0
